"""Models of an image in parts: grey and then colour, small and then large."""
