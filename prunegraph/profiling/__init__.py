"""Measures what the ops of a network take on its device."""
