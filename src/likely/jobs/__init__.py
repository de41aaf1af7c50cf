"""Whole jobs, the same for the command, Python and the benchmarks."""
