"""The HTTP/1.1 client of the data path: one connection, a pool of them, and TLS."""
