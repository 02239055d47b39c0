"""The demo: prune a two-speaker separator to half its MACs, recover it, listen."""
