"""Text to phonemes to ids, as the Piper client makes them."""
