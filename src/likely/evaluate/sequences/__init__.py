"""Measures of models of sequences."""
