"""What the tests share: canaries and the searcher that looks for them, and how skips are counted."""
