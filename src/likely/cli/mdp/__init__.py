"""The command `likely mdp`."""
