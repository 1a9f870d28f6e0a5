"""The speech server: an OpenAI-compatible door to one loaded voice. Needs the extra `serve`; started by fish_speech.serve."""
