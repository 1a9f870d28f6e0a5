"""Speaking as a person asks for it: which text, one line or a batch of them, and where the sound goes."""
