"""Statements from counts: confidence sets, robust values between bounds, safe improvement."""
