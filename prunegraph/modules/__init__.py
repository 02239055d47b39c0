"""Modules that take the place of torch's: where those cannot have the widths of a plan, or are slower on a CPU."""
