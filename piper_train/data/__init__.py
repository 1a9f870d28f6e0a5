"""From metadata.csv or a prepared data set to batches: phonemes, trimmed sound, spectrograms, all kept in a cache."""
