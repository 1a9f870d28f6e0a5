"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech import files

PACKAGE_PARENT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_written(tmp_path):
    path = tmp_path / "new" / "folder" / "clip.npy"
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"codes")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, ".npy")
    assert path.read_bytes() == b"codes"
    assert names(path.parent) == ["clip.npy"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "step.ckpt"
    path.write_bytes(b"a long old checkpoint")
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"a long old checkpoint"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("bad clip"), KeyboardInterrupt(), SystemExit(2)])
def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "clip.npy"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["clip.npy"]


def test_a_full_disk_is_reported_with_the_name_the_user_knows(tmp_path):
    path = tmp_path / "clip.npy"
    with pytest.raises(OSError) as caught, files.atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "clip.npy"):
        pass
    assert names(tmp_path) == []


def test_a_very_long_name_still_fits(tmp_path):
    path = tmp_path / ("a" * 240 + ".json")
    files.write_json(path, {"a": 1})
    assert names(tmp_path) == [path.name]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    code = """
import os, signal, sys
from pathlib import Path
from fish_speech.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(path)], cwd=PACKAGE_PARENT)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    assert files.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["model.pth"]


def test_files_of_running_processes_and_of_users_are_no_leftovers(tmp_path):
    folder = tmp_path / "speaker"
    folder.mkdir()
    running = folder / f"{files.TEMPORARY_PREFIX}{os.getppid()}-clip.npy"
    foreign = folder / f"{files.TEMPORARY_PREFIX}notes.txt"
    for path in (running, foreign, folder / "clip.npy"):
        path.write_bytes(b"x")
    assert files.remove_leftovers(tmp_path) == 0
    assert len(names(folder)) == 3


def test_leftovers_are_found_in_subfolders_and_counted(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass  # its number belongs to nobody now
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{files.TEMPORARY_PREFIX}{process.pid}-clip.npy").write_bytes(b"x")
    assert files.remove_leftovers(tmp_path) == (2 if os.name != "nt" else 0)


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    assert files.remove_leftovers(tmp_path / "nowhere") == 0


def test_text_is_utf_8_with_unix_line_ends(tmp_path):
    files.write_text(tmp_path / "clip.lab", "Привет, 世界\nзавтра\n")
    assert (tmp_path / "clip.lab").read_bytes() == "Привет, 世界\nзавтра\n".encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=json_values)
def test_json_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_a_full_disk_is_said_of_the_copy_not_of_its_source(tmp_path):
    with pytest.raises(OSError) as caught, files.atomic_path(tmp_path / "copy.bin"):
        raise OSError(errno.ENOSPC, "No space left on device", "source.bin", None, "temporary.bin")
    assert caught.value.filename == str(tmp_path / "copy.bin")
