"""What the phoneme tests need: which sources are installed, and the Piper client's own answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest


def _has_piper() -> bool:
    try:
        version("piper-tts")
    except PackageNotFoundError:
        return False
    return True


needs_piper = pytest.mark.skipif(not _has_piper(), reason="piper-tts is not installed (extra piper-espeak)")
needs_program = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="there is no espeak-ng program")

# piper-tts is GPL: the tests too ask it in a process of its own.
_CLIENT = """
import json, sys
from piper import PiperConfig, PiperVoice
from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP as table
for asked in json.load(sys.stdin):
    values = {"num_symbols": 256, "num_speakers": 1, "audio": {"sample_rate": 22050}, "phoneme_id_map": table}
    values |= {"espeak": {"voice": asked["voice"]}, "phoneme_type": asked["kind"], "vowel_clusters": asked["clusters"]}
    voice = PiperVoice(session=None, config=PiperConfig.from_dict(values))
    spoken = [voice.phonemize(text) for text in asked["texts"]]
    print(json.dumps([[s, [voice.phonemes_to_ids(sentence) for sentence in s]] for s in spoken]))
"""


def asking(texts, voice, clusters=None, kind="espeak"):
    """A question to `ask_client`."""
    return {"texts": texts, "voice": voice, "clusters": clusters, "kind": kind}


def ask_client(*questions):
    """For each question, for each text: the sentences of phonemes, and the ids of each, that PiperVoice itself makes."""
    command = [sys.executable, "-c", _CLIENT]
    answer = subprocess.run(command, input=json.dumps(questions).encode(), capture_output=True, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]
