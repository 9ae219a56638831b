"""A local authenticating reverse proxy: tools speak plainly to it, it speaks with a bearer token upstream."""

__version__ = "0.1.0"
