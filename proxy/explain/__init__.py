"""Says what would become of a request, without sending it and without a token."""
