"""Makes the smaller network."""
