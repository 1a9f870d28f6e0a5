"""How many clips may be left out: none unless the user says so, then a share, one in any case, never all."""

import argparse

import pytest

from fish_speech.left_out import add_max_left_out, exit_code


@pytest.mark.parametrize(
    ("left_out", "clips", "percent", "code"),
    [
        (0, 10, 0, 0),
        (1, 1000, 0, 1),
        (1, 10, 5, 0),  # 10 %, but one is always allowed
        (2, 10, 5, 1),
        (10, 200, 5, 0),
        (11, 200, 5, 1),
        (9, 10, 100, 0),
        (10, 10, 100, 1),
        (1, 1, 5, 1),
    ],
)
def test_the_exit_code_follows_the_share(left_out, clips, percent, code):
    assert exit_code(left_out, clips, percent) == code


@pytest.mark.parametrize("text", ["-1", "101", "nan", "all"])
def test_what_is_no_percentage_is_refused(text):
    parser = argparse.ArgumentParser()
    add_max_left_out(parser)
    assert parser.parse_args([]).max_left_out == 0
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-left-out", text])
