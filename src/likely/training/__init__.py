"""Fitting: the loop, objectives, optimisers, health, devices."""
