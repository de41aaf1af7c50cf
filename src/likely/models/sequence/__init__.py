"""Models of sequences: a causal body over time, a joint density within each step."""
