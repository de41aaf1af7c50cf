"""Partially observed processes: bounds on the value of beliefs."""
