"""`python -m fish_speech.tournament` as a user runs it, after training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from fish_speech.versions import VERSIONS

from ..conftest import REPO
from .conftest import TRAINING
from .scripts import command, contents, data_set, environment, leftovers, put_base, record, refuse, run

EVAL_EXTRA = ("jiwer", "num2words", "pocketsphinx", "resemblyzer", "webrtcvad", "speechmos")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_base):
    """A folder with a run of steps 2 and 4 on twelve clips, of which one was held out; read only."""
    folder = tmp_path_factory.mktemp("trained")
    put_base(folder, small_base)
    data = data_set(folder / "training_data/p", 12)
    record(data / "anna/clip000.wav", 0.8, 1, None)
    flags = ("--max-steps", 4, "--save-every-n-steps", 2, *TRAINING)
    run("finetune_tts.py", "--project", "p", "--data-dir", data.relative_to(folder), "--train", "--build-dataset",
        "--keep-going", *flags, cwd=folder)  # fmt: skip
    return folder


@pytest.fixture()
def folder(trained, tmp_path):
    """A copy of that folder, with all times kept."""
    return shutil.copytree(trained, tmp_path / "work", copy_function=shutil.copy2)


def hold(folder, *flags, code=0):
    """Hold the tournament of p where the eval extra is not installed; return what was said and the record."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    lines = f"import sys\nsys.modules.update(dict.fromkeys({EVAL_EXTRA!r}))\n"
    (blocked / "sitecustomize.py").write_text(lines, encoding="utf-8")
    result = subprocess.run(
        command("tournament", "--project", "p", "--device", "cpu", *flags),
        cwd=folder,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(blocked), str(REPO)])},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert result.returncode == code and "Traceback" not in result.stderr, result.stdout + result.stderr
    results = folder / "results/p/tournament/results.json"
    return result, json.loads(results.read_text(encoding="utf-8")) if results.exists() else None


def recommended(folder):
    code = "from fish_speech.tournament_record import recommended_step; print(recommended_step('p'))"
    return subprocess.check_output([sys.executable, "-c", code], cwd=folder, env=environment(), text=True).strip()


@pytest.mark.slow
def test_without_the_eval_extra_the_held_out_loss_decides(folder):
    held, results = hold(folder, "--num-texts", 2)
    assert "words, voice and quality are measured with the eval extra: pip install" in held.stdout
    names = [system["name"] for system in results["systems"]]
    assert names == ["base", "step 2", "step 4"]
    assert [system["step"] for system in results["systems"]] == [None, 2, 4]
    losses = {system["name"]: system["held_out_losses"] for system in results["systems"]}
    assert all(len(found) == 1 for found in losses.values())  # one clip of twelve is held out
    assert losses["step 2"] != losses["base"] != losses["step 4"]
    texts = [clip["text"] for clip in results["systems"][0]["clips"]]
    assert texts[0].startswith("Words of clip") and not texts[1].startswith("Words of clip")
    step = results["recommended"]
    assert step == 2  # a single held-out clip proves nothing, so the earliest is as good as the best
    assert f"\nuse step {step}: " in held.stdout and recommended(folder) == str(step)
    page = (folder / "results/p/tournament/report.html").read_text(encoding="utf-8")
    assert f"use step {step}: " in page and page.count(">recommended<") == 1 and "://" not in page
    sounds = [clip["audio"] for system in results["systems"] for clip in system["clips"] if clip["audio"]]
    assert page.count("<audio") == len(sounds) > 0
    assert all((folder / "results/p/tournament" / sound).is_file() for sound in sounds)
    assert leftovers(folder / "results") == []

    before = contents(folder / "results/p/tournament")
    again, _ = hold(folder, "--num-texts", 2)
    assert "has been held; --force holds it again" in again.stderr and again.stdout == held.stdout
    assert contents(folder / "results/p/tournament") == before
    _, forced = hold(folder, "--num-texts", 2, "--force")
    assert forced["created"] != results["created"] or forced["systems"] == results["systems"]
    figures = [[clip["duration_s"] for clip in system["clips"] if "duration_s" in clip] for system in forced["systems"]]
    assert figures == [[c["duration_s"] for c in s["clips"] if "duration_s" in c] for s in results["systems"]]


@pytest.mark.slow
def test_a_checkpoint_that_came_later_makes_it_stale_and_it_is_held_anew(folder):
    hold(folder, "--num-texts", 1, "--no-reference")
    checkpoints = folder / "results/p/checkpoints"
    shutil.copy2(checkpoints / "step_000000004.ckpt", checkpoints / "step_000000006.ckpt")
    assert recommended(folder) == "None"
    _, results = hold(folder, "--num-texts", 1, "--no-reference")
    assert [system["step"] for system in results["systems"]] == [None, 2, 4, 6]
    assert recommended(folder) == str(results["recommended"])


@pytest.mark.slow
def test_a_torn_checkpoint_is_named_and_the_others_compete(folder):
    torn = folder / "results/p/checkpoints/step_000000002.ckpt"
    torn.write_bytes(torn.read_bytes()[:1000])
    held, results = hold(folder, "--num-texts", 1, "--no-reference", code=1)
    assert "step 2 could not take part: the file is torn" in held.stdout
    assert results["recommended"] == 4 and recommended(folder) == "4"


@pytest.mark.slow
def test_data_packed_anew_is_not_taken_for_held_out(folder):
    (folder / "training_data/p/anna/clip003.lab").write_text("Other words.", encoding="utf-8")
    run("build_dataset", "--input", "training_data/p", "--output", "results/p/protos", "--text-extension", ".lab",
        cwd=folder, code=0)  # fmt: skip
    held, results = hold(folder, "--num-texts", 1, "--no-reference")
    assert "packed anew since this training" in held.stdout
    assert results["recommended"] is None and "no step is recommended" in held.stdout
    assert not results["systems"][0]["clips"][0]["text"].startswith("Words of clip")
    shard = folder / "results/p/protos/00000000.protos"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "the packed data of this run cannot be used" in hold(folder, "--num-texts", 1, "--force")[0].stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl+C of another process is a POSIX signal")
def test_stopped_in_the_middle_it_leaves_the_former_one_whole(folder):
    hold(folder, "--num-texts", 1, "--no-reference")
    before = contents(folder / "results/p/tournament")
    child = subprocess.Popen(
        command("tournament", "--project", "p", "--device", "cpu", "--num-texts", 16, "--no-reference", "--force"),
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((folder / "results/p").glob(".partial-*/audio/base/*.wav")) and time.monotonic() < deadline:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130 and "Traceback" not in said, said
    assert contents(folder / "results/p/tournament") == before and leftovers(folder / "results") == []


@pytest.mark.slow
def test_words_and_voice_are_measured_where_the_eval_extra_is(again):
    for package in ("jiwer", "num2words", "pocketsphinx", "resemblyzer", "speechmos", "onnxruntime"):
        pytest.importorskip(package, reason="the eval extra is not installed")
    result = run("tournament", "--project", "voice", "--num-texts", 2, "--device", "cpu", "--asr", "pocketsphinx",
                 "--workers", 1, "--force", cwd=again)  # fmt: skip
    results = json.loads((again / "results/voice/tournament/results.json").read_text(encoding="utf-8"))
    assert results["recommended"] == 4 and "use step 4: the only checkpoint (WER " in result.stdout
    for system in results["systems"]:
        assert system["summary"]["wer"] >= 0 and len(system["clips"]) == 2
    assert "the data set has no recordings with a voice" in result.stdout  # they are tones
    assert "this run held no clips out" in result.stdout and "0 held-out texts and 2 fixed sentences" in result.stdout


def test_a_wrong_request_ends_with_code_2_and_one_message(workspace):
    assert "has no checkpoints" in refuse("tournament", "--project", "none", cwd=workspace)
    assert "cannot be a folder name" in refuse("tournament", "--project", "../p", cwd=workspace)
    checkpoint = workspace / "results/p/checkpoints/step_000000002.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"no weights")
    assert "no folder gone" in refuse("tournament", "--project", "p", "--base", "gone", cwd=workspace)
    torch.save({"fish_speech": {"base": str(VERSIONS["1.5"].folder)}}, checkpoint)
    (workspace / "results/p/tournament").mkdir()
    (workspace / "results/p/tournament/mine.txt").write_text("mine", encoding="utf-8")
    assert "no tournament wrote" in refuse("tournament", "--project", "p", cwd=workspace)


@pytest.mark.slow
def test_without_a_readable_checkpoint_there_is_no_tournament(folder):
    for path in (folder / "results/p/checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    assert "can be read" in refuse("tournament", "--project", "p", cwd=folder)
    assert not (folder / "results/p/tournament").exists()
