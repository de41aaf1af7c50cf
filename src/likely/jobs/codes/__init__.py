"""What is asked of the codes of a run: measured, drawn, moved, added, found, given a density."""
