"""Reference separators."""
