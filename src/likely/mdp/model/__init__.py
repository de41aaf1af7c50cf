"""The problem: MDPs stored, factored and generated, operators on them, and what a solve returns."""
