"""Training: sources make batches, one loop takes steps, checkpoints are published whole."""
