"""Exact ancestral sampling: the incremental program, its executors, drawing."""
