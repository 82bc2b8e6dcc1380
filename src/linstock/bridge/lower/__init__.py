"""Lowering: the operations of a graph become expressions of the target."""
