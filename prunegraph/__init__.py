"""Prunes the channels of any PyTorch separation network by a traced dependency graph, and proves the result."""

__version__ = "0.1.0"
