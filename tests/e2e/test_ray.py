"""The same work on a Ray cluster of two processes gives the same files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fish_speech.workers import WorkerLost

from ..conftest import CODEC_FILE
from .ray_tasks import die, what_a_task_gets
from .scripts import BASE, REPO, contents, record, refuse, run

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


def encoded(folder: Path) -> dict[str, bytes]:
    """All files of a data set, but for its sounds."""
    return {name: data for name, data in contents(folder).items() if not name.endswith(".wav")}


def test_a_cluster_encodes_what_one_process_encodes(workspace, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for name in ("here", "there"):
        for number in range(7):
            record(workspace / name / "anna" / f"{number}.wav", 1 + 0.3 * number, number, None)
        (workspace / name / "anna/torn.wav").write_bytes(b"RIFF")
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    common = (*codec, "--batch-size", 2, "--device", "cpu")
    run("extract_vq", "here", *common, "--check-dir", "check/here", cwd=workspace, code=1)
    told = run("extract_vq", "there", *common, "--runner", "ray", "--check-dir", "check/there", cwd=workspace, code=1)
    assert "7 of 7 clips to encode, a Ray cluster of" in told.stderr and "torn.wav" in told.stderr
    assert "codec round trip of 3 clips" in told.stderr
    here, there = encoded(workspace / "here"), encoded(workspace / "there")
    assert len(here) == 7 + 1 and here == there
    assert contents(workspace / "check/here") == contents(workspace / "check/there")
    again = run("extract_vq", "there", *common, "--runner", "ray", cwd=workspace, code=1)
    assert "0 encoded" in again.stdout and encoded(workspace / "there") == there


def test_a_cluster_without_a_gpu_is_not_asked_for_one(workspace, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    record(workspace / "data/one.wav", 1, 1, None)
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    message = refuse("extract_vq", "data", *codec, "--runner", "ray", "--device", "cuda", cwd=workspace)
    assert "--device cuda asks for a GPU, and the cluster has none" in message


@pytest.fixture()
def cluster_of_two_gpus(monkeypatch):
    """Two CPUs, and two GPUs by name: Ray counts what it is told."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    path = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    yield
    ray.shutdown()


def test_each_task_gets_a_gpu_of_its_own_in_a_process_that_stays(cluster_of_two_gpus):
    from fish_speech.extract_vq import _device_of
    from fish_speech.ray_runner import ray_cluster

    with ray_cluster() as cluster:
        assert (cluster.cpus, cluster.gpus, _device_of(cluster, "auto")) == (2, 2, "cuda")
        assert _device_of(cluster, "cpu") == "cpu" and str(cluster) == "a Ray cluster of 2 CPUs and 2 GPUs"
        done = sorted(cluster.run(what_a_task_gets, range(12), gpus=1))
        assert [task for task, _, _ in done] == list(range(12)) and all(len(gpus) == 1 for _, gpus, _ in done)
        assert len({process for _, _, process in done}) <= 4  # not one for each task, which would load the codec anew
        assert all(gpus == [] for _, gpus, _ in cluster.run(what_a_task_gets, range(2)))
        with pytest.raises(WorkerLost, match="a process of the Ray cluster died"):
            list(cluster.run(die, range(1)))
