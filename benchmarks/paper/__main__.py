"""Runs the protocol: ``python -m benchmarks.paper``."""

from benchmarks.paper.commands import main

main()
