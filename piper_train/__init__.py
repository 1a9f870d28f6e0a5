"""Piper voices: train a VITS model on a data set, export it to ONNX, and speak with it."""
