"""Where measured values are written to."""
