"""Where tokens rest between requests and restarts, and what must be remembered of a rejection."""
