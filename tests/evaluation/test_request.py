"""What the evaluation's command line asks for, before anything is loaded."""

import pytest

from fish_speech import evaluate as command
from fish_speech.errors import UserError
from fish_speech.evaluation import MEASURES


def test_the_command_line_names_every_measure():
    assert tuple(MEASURES) == command.MEASURES


@pytest.mark.parametrize("flags", [["--recordings", "old={}"], ["--recordings", "new=.", "--speaker", "{}"]])
def test_sounds_of_the_evaluation_that_is_replaced_cannot_be_its_input(tmp_path, flags):
    sounds = tmp_path / "out" / "audio" / "old"
    sounds.mkdir(parents=True)
    flags = [flag.format(sounds) for flag in flags]
    given = command.make_parser().parse_args([*flags, "--output", str(tmp_path / "out"), "--force"])
    with pytest.raises(UserError, match="written anew"):
        command.check_request(given)
    assert sounds.is_dir()
