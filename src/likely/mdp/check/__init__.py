"""Second opinions: certificates, simulation, the operators in torch."""
