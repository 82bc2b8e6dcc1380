"""What a training loop needs around a module: state, checkpoints, schedules, loss scaling."""
