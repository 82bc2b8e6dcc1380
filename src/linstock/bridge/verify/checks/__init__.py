"""Checks: one file for each promise, and what they need."""
