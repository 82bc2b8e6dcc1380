"""Capture: a torch model becomes a graph of operations and the tree of its module calls."""
