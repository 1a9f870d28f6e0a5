"""Losses, the Lightning module, checkpoints: how a Piper voice is trained."""
