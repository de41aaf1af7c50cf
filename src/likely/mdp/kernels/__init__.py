"""Compiled loops over rows of states, and what binds them to one problem."""
