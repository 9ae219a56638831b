"""The admin listener: health, metrics, the state of the credentials."""
