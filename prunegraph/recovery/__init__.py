"""Recovering the quality of a pruned separator: losses, fine-tuning, evaluation."""
