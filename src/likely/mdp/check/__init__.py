"""Second opinions: certificates and simulation."""
