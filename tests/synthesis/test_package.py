"""The package gives the names that others rely on, and loads torch only for them."""

import subprocess
import sys

PROGRAM = """
import sys
import fish_speech.synthesis
from fish_speech.synthesis import cache, voice_library, voices
assert "torch" not in sys.modules, "torch was loaded"
from fish_speech.synthesis import generate
import fish_speech.synthesis.generation
from fish_speech.synthesis import generate as again
assert callable(generate) and again is generate is fish_speech.synthesis.generation.generate
"""


def test_generate_is_the_function_and_light_parts_need_no_torch():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
