"""The exact masked program."""
