"""Which channels stay under a budget."""
