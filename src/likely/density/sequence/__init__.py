"""Densities of sequences: the chain rule over time, and the density within a step."""
