"""Weights are known by their content, read once, and never mistaken for what lay there before."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.synthesis import weights_identity as module
from fish_speech.synthesis.weights_identity import weights_identity


@pytest.fixture()
def hashed(monkeypatch) -> list[Path]:
    """The files whose content is read."""
    read: list[Path] = []
    content_hash = module.sha256
    monkeypatch.setattr(module, "sha256", lambda path: read.append(path) or content_hash(path))
    return read


@pytest.fixture()
def later(monkeypatch):
    """Let the clock show some seconds more: files need not age in real time. ctime cannot be set back."""

    def wait(seconds: float) -> None:
        now = time.time_ns
        monkeypatch.setattr(module.time, "time_ns", lambda: now() + round(seconds * 1e9))

    return wait


def write(folder: Path, **contents: bytes) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.binary(max_size=2), min_size=1, max_size=3)] * 2)
def test_identities_are_equal_just_where_contents_are_equal_in_the_same_order(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("weights")
    identities = []
    for place, contents in enumerate((first, second)):
        paths = write(folder / str(place), **{f"{place}-{i}": content for i, content in enumerate(contents)})
        identities.append(weights_identity(paths, folder / "notes"))
    assert (identities[0] == identities[1]) == (first == second)
    assert len(identities[0]) == 64


def test_a_second_start_reads_no_weights(tmp_path, hashed, later):
    paths = write(tmp_path / "model", a=b"weights", b=b"config")
    later(5)
    first = weights_identity(paths, tmp_path / "notes")
    assert len(hashed) == 2
    assert weights_identity(paths, tmp_path / "notes") == first and len(hashed) == 2
    other_way = [path.parent / ".." / "model" / path.name for path in paths]
    assert weights_identity(other_way, tmp_path / "notes") == first and len(hashed) == 2


def test_a_file_just_written_is_not_remembered(tmp_path, hashed):
    """A second change within a tick of the file system's clock would leave size and times as they were."""
    paths = write(tmp_path / "model", a=b"weights")
    for count in (1, 2, 3):
        weights_identity(paths, tmp_path / "notes")
        assert len(hashed) == count


def test_a_file_from_the_future_is_not_remembered(tmp_path, hashed, later):
    paths = write(tmp_path / "model", a=b"weights")
    later(5)
    os.utime(paths[0], (time.time() + 3600, time.time() + 3600))
    weights_identity(paths, tmp_path / "notes")
    weights_identity(paths, tmp_path / "notes")
    assert len(hashed) == 2


def test_a_change_is_seen_whatever_size_and_time_the_new_file_has(tmp_path, later):
    (path,) = write(tmp_path / "model", a=b"weights")
    os.utime(path, (1000, 1000))
    later(5)
    seen = {weights_identity([path], tmp_path / "notes")}
    path.write_bytes(b"heavier")
    os.utime(path, (1000, 1000))  # changed in place
    later(5)
    seen.add(weights_identity([path], tmp_path / "notes"))
    (other,) = write(tmp_path / "other", a=b"lighter")
    os.utime(other, (1000, 1000))
    other.replace(path)  # another file put in place
    later(5)
    seen.add(weights_identity([path], tmp_path / "notes"))
    assert len(seen) == 3 or os.name == "nt"  # Windows has no ctime that tells a change in place


def test_a_link_that_leads_elsewhere_now_is_another_identity(tmp_path, later):
    first, second = write(tmp_path / "model", a=b"weights", b=b"heavier")
    link = tmp_path / "link"
    try:
        link.symlink_to(first)
    except OSError:
        pytest.skip("links are not allowed here")
    later(5)
    before = weights_identity([link], tmp_path / "notes")
    link.unlink()
    link.symlink_to(second)
    assert weights_identity([link], tmp_path / "notes") == weights_identity([second], tmp_path / "notes") != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"sha256": 3}', b"[" * 10_000, bytes(1 << 20)])
def test_a_torn_or_odd_note_is_not_believed(tmp_path, later, content):
    paths = write(tmp_path / "model", a=b"weights")
    later(5)
    first = weights_identity(paths, tmp_path / "notes")
    (note,) = (tmp_path / "notes").iterdir()
    good = json.loads(note.read_text(encoding="utf-8"))
    for bad in (content, json.dumps({**good, "sha256": "xyz"}).encode(), json.dumps({**good, "size": 1}).encode()):
        note.write_bytes(bad)
        assert weights_identity(paths, tmp_path / "notes") == first
        assert json.loads(note.read_text(encoding="utf-8")) == good


def test_notes_that_cannot_be_written_cost_only_time(tmp_path, later):
    paths = write(tmp_path / "model", a=b"weights")
    (tmp_path / "notes").write_text("a file")
    later(5)
    assert weights_identity(paths, tmp_path / "notes") == weights_identity(paths, tmp_path / "notes" / "more")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    (path,) = write(tmp_path / "model", a=b"weights")
    content_hash = module.sha256

    def grow(path: Path) -> str:
        found = content_hash(path)
        with path.open("ab") as file:
            file.write(b"+")
        return found

    monkeypatch.setattr(module, "sha256", grow)
    with pytest.raises(UserError, match="changes while it is read"):
        weights_identity([path], tmp_path / "notes")


def test_missing_weights_are_an_error(tmp_path):
    for path in (tmp_path / "model.pth", tmp_path):
        with pytest.raises(UserError, match="cannot read the weights"):
            weights_identity([path], tmp_path / "notes")


def test_notes_lie_in_the_cache_folder(tmp_path, monkeypatch, later):
    monkeypatch.setenv("FISH_SPEECH_CACHE", str(tmp_path / "cache"))
    paths = write(tmp_path / "model", a=b"weights")
    later(5)
    weights_identity(paths)
    assert len(list((tmp_path / "cache" / "weights").iterdir())) == 1
