"""Speak with an exported voice through onnxruntime."""
