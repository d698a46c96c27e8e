"""The training loop: stages, epochs, steps, checkpoints."""
