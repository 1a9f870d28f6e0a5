"""The log of both packages: `fish_speech.log.setup` sends it to stderr."""

from fish_speech.log import setup

__all__ = ["setup"]
