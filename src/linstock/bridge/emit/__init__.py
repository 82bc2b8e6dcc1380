"""Emitting: module classes become the text of a Python file."""
