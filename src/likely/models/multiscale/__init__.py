"""From coarse to fine."""
