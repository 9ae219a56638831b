"""Who has a token: the grants that obtain one, and the source that shares it among requests."""
