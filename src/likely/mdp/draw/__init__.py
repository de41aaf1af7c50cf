"""Pictures and printed comparisons."""
