"""Voice fine-tuning toolkit: prepare recordings, extract codes, train LoRA adapters, merge, speak."""

__version__ = "0.1.0"
