"""`python -m piper_train fit ...` trains a Piper voice."""

from fish_speech.errors import run

from .cli import main

if __name__ == "__main__":
    run(main)
