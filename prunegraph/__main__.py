"""``python -m prunegraph`` is the command ``prunegraph``."""

from prunegraph.cli import app

if __name__ == "__main__":
    app(prog_name="prunegraph")
