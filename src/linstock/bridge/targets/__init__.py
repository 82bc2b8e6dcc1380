"""Targets: how a library writes a module class."""
