"""The doors: solve, evaluate, backward induction, average reward."""
