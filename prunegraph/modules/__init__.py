"""Modules that take the place of torch's where those cannot have the widths that a plan chooses."""
