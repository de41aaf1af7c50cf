"""Likely: learn p_model(x), ask it questions, plan in it."""

__version__ = "0.1.0"
