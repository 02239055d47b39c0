"""Separation networks in the style in which public repositories write them; our own code."""
