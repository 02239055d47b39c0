"""Proves that a pruned network is exactly the one that was chosen."""
