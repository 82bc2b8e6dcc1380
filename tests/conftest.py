"""Settings that every test runs under; they stand here because they precede the first import."""

import os

# Two cores are what the smallest machine has; more threads than cores only wait for each other.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ["OMP_NUM_THREADS"] = str(max(1, 2 // workers))
os.environ["JAX_PLATFORMS"] = "cpu"
# Thousands of small programs are compiled and run once: not optimizing them halves the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# No test may wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
