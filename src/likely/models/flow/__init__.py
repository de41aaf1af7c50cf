"""Flows on data."""
