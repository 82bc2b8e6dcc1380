"""Fresh variables: how the constructor makes each tensor, and what says so in the target."""
