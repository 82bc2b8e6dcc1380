"""The bridge between PyTorch and Flax Linen."""
