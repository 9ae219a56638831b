"""The clients' side: accepts connections, reads requests, writes answers."""
