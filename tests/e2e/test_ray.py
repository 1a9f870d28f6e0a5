"""The same work on a Ray cluster of two processes gives the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .scripts import REPO, contents, refuse, run

pytestmark = pytest.mark.slow


@pytest.fixture()
def recordings(tmp_path) -> Path:
    """Five real recordings, and one that nothing can be made of."""
    folder = tmp_path / "in" / "anna"
    folder.mkdir(parents=True)
    for clip in sorted((REPO / "samples/allison").glob("*.flac"))[:5]:
        shutil.copy2(clip, folder)
        shutil.copy2(clip.with_suffix(".txt"), folder)
    (folder / "torn.wav").write_bytes(b"RIFF")
    (folder / "torn.txt").write_text("Torn.", encoding="utf-8")
    return tmp_path / "in"


def test_a_cluster_makes_what_one_process_makes(recordings, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    run("prepare_dataset.py", "--input", "in", "--output", "here", "--workers", 1, cwd=tmp_path, code=1)
    run("prepare_dataset.py", "--input", "in", "--output", "there", "--runner", "ray", cwd=tmp_path, code=1)
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert len(here) == 5 * 2 + 2 and here == there


def test_a_cluster_that_is_not_there_is_a_wrong_request(recordings, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    told = refuse("prepare_dataset.py", "--input", "in", "--output", "out", "--runner", "ray", cwd=tmp_path)
    assert "no Ray cluster at 127.0.0.1:9" in told
