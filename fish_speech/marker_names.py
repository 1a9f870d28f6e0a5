"""Names of moods, tones and sounds that OpenAudio S1-mini obeys, as it documents them. Imports nothing, for --help."""

from collections.abc import Mapping

EMOTIONS = (
    "angry", "sad", "excited", "surprised", "satisfied", "delighted", "scared", "worried", "upset", "nervous",
    "frustrated", "depressed", "empathetic", "embarrassed", "disgusted", "moved", "proud", "relaxed", "grateful",
    "confident", "interested", "curious", "confused", "joyful", "disdainful", "unhappy", "anxious", "hysterical",
    "indifferent", "impatient", "guilty", "scornful", "panicked", "furious", "reluctant", "keen", "disapproving",
    "negative", "denying", "astonished", "serious", "sarcastic", "conciliative", "comforting", "sincere", "sneering",
    "hesitating", "yielding", "painful", "awkward", "amused",
)  # fmt: skip
TONES = ("in a hurry tone", "shouting", "screaming", "whispering", "soft tone")
EFFECTS = (
    "laughing", "chuckling", "sobbing", "crying loudly", "sighing", "panting", "groaning", "crowd laughing",
    "background laughter", "audience laughing",
)  # fmt: skip
MARKERS: Mapping[str, tuple[str, ...]] = {"emotion": EMOTIONS, "tone": TONES, "effect": EFFECTS}  # by their flags
