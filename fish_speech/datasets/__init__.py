"""Training data: packed shards on disk, clips in memory, and the batches a training step sees."""
