"""Verifying: both sides run and are compared."""
