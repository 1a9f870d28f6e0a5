"""Names in a batch lead into the output folder, and each to a file of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.names import collision_key
from fish_speech.speaking.output_names import TakenNames, output_problem


@pytest.mark.parametrize(
    "name", ["0001.wav", "a/b/c.FLAC", "Grüße 1.wav", "你好.flac", "a.b.wav", "-x.wav", "a..b.wav"]
)
def test_plain_relative_names_are_fine(name):
    assert output_problem(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.mp3", "must end in"),
        ("a", "must end in"),
        ("", "must end in"),
        ("../a.wav", "not inside"),
        ("a/../../b.wav", "not inside"),
        ("/etc/a.wav", "not inside"),
        ("a//b.wav", "not inside"),
        ("..\\a.wav", "character"),
        ("C:a.wav", "character"),
        ("a\0.wav", "character"),
        ("a\n.wav", "character"),
        ("a\u202e.wav", "character"),
        (".partial-1-a.wav", "dot"),
        (".wav", "dot"),
        ("./a.wav", "dot"),
        ("~/a.wav", "~"),
        ("a /b.wav", "space"),
        ("a./b.wav", "dot"),
        ("con.wav", "device"),
        ("x/NUL/a.wav", "device"),
        ("Com1.b.wav", "device"),
        ("ü" * 60 + ".wav", "too long"),
        ("a/" * 300 + "a.wav", "too long"),
    ],
)
def test_names_that_escape_hide_or_work_only_here_are_refused(name, told):
    problem = output_problem(name)
    assert problem is not None and told in problem


@given(st.text(alphabet=st.sampled_from("aB/.\\:~ \0ü-1NUL…")).map(lambda text: text + ".wav") | st.text())
def test_a_name_that_is_accepted_stays_inside_the_folder_on_every_system(name):
    if output_problem(name) is None:
        assert not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        windows = PureWindowsPath(name)
        assert not windows.is_absolute() and not windows.drive and not windows.is_reserved()
        assert len(windows.parts) == len(PurePosixPath(name).parts)


@given(st.text(alphabet="aÄä/.ß-1", min_size=1, max_size=12).map(lambda text: text + ".wav"))
def test_a_name_that_is_accepted_can_be_written(name):
    if output_problem(name) is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            assert path.resolve().is_relative_to(Path(folder).resolve())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.wav", "a.wav"),
        ("a.wav", "A.WAV"),
        ("ä.wav", "a\u0308.wav"),
        ("x/a.wav", "X/a.wav"),
        ("a.wav", "a.wav/b.wav"),
        ("a.wav/b.wav", "a.wav"),
        ("x/a.wav/b/c.wav", "x/a.wav"),
    ],
)
def test_two_names_for_one_file_and_files_that_would_be_folders_collide(first, second):
    names = TakenNames()
    assert names.take(first, 3) is None
    assert names.take(second, 5) == 3


@given(st.lists(st.text(alphabet="aAbä/", min_size=1, max_size=5).map(lambda text: text + ".wav"), max_size=12))
def test_names_that_are_taken_are_all_different(names):
    taken, kept = TakenNames(), []
    for number, name in enumerate(names):
        if output_problem(name) is None and taken.take(name, number) is None:
            kept.append(collision_key(name))
    assert len(set(kept)) == len(kept)
    assert not any(other.startswith(f"{name}/") for name in kept for other in kept)
