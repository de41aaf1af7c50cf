"""Commands that ask a fitted run something."""
