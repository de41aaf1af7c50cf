"""Classical densities: mixtures and factor models."""
