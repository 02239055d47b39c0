"""The command line: ``prunegraph inspect | prune | verify | plugins``."""

from prunegraph.cli.commands import app

__all__ = ["app"]
