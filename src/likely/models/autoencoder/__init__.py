"""Autoencoders: codes without a density, and with one."""
