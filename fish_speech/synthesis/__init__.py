"""From text to sound: sampling, generation with cached keys and values, voices, effects and speech.

Imports nothing itself, so that voices are listed and the cache is looked at without torch.
"""
