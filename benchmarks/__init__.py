"""Speed and memory of training, merging, the codec and generation, each beside a stated baseline: `python -m benchmarks`."""
