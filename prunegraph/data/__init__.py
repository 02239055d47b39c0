"""Recorded speech and two-speaker mixtures: audio files, corpora, splits, mixtures."""
