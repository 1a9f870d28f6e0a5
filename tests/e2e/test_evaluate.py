"""`python -m fish_speech.evaluate` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ..conftest import CODEC_FILE, REPO
from .scripts import environment, leftovers, record, refuse, run

PACKAGES = ("jiwer", "num2words", "pocketsphinx", "resemblyzer", "speechmos", "onnxruntime")
ALLISON = REPO / "samples" / "allison"


@pytest.fixture()
def folder(tmp_path):
    """Two made-up recordings, and texts."""
    record(tmp_path / "wavs/one.wav", 0.8, 1, "One is the first.")
    record(tmp_path / "wavs/two.wav", 0.6, 2, None)
    (tmp_path / "texts.txt").write_text("Hello there.\n\nGate <22> & more.\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_checkpoint_recordings_and_a_codec_are_compared_in_one_report(folder, small_base):
    for package in PACKAGES:
        pytest.importorskip(package, reason="the eval extra is not installed")
    result = run(
        "evaluate",
        *("--checkpoint", f"tiny={small_base}", "--texts", "texts.txt", "--recordings", f"allison={ALLISON}"),
        *("--codec", f"small={small_base / CODEC_FILE}", "--clips", ALLISON, "--speaker", ALLISON, "--limit", 2),
        *("--asr", "pocketsphinx", "--workers", 2, "--output", "out", "--players", 1),
        cwd=folder,
    )
    assert [line.split()[0] for line in result.stdout.splitlines()[1:5]] == ["tiny", "small", "originals", "allison"]
    report = json.loads((folder / "out/results.json").read_text(encoding="utf-8"))
    tiny, small, originals, allison = report["systems"]
    assert [len(system["clips"]) for system in report["systems"]] == [2, 2, 2, 2]
    assert 0 <= tiny["summary"]["ends_by_itself"] <= 1
    assert small["summary"]["mel_l1"] > 0 and small["summary"]["wer_original"] == originals["summary"]["wer"]
    assert allison["summary"]["wer"] < 0.6 and allison["summary"]["similarity"] > 0.85
    assert all((folder / "out" / clip["audio"]).is_file() for s in report["systems"] for clip in s["clips"])
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 4 and "Gate &lt;22&gt; &amp; more." in page and "://" not in page
    assert leftovers(folder) == []


def measured(folder, name, *flags):
    run("evaluate", "--recordings", "w=wavs", "--measures", "quality", "--output", name, *flags, cwd=folder)
    return json.loads((folder / name / "results.json").read_text(encoding="utf-8"))["systems"]


@pytest.mark.slow
def test_workers_change_no_figure_and_an_evaluation_is_replaced_only_if_asked(folder):
    pytest.importorskip("onnxruntime", reason="the eval extra is not installed")
    pytest.importorskip("speechmos", reason="the eval extra is not installed")
    one = measured(folder, "one", "--workers", 1)
    assert measured(folder, "two", "--workers", 2) == one
    assert "already holds an evaluation" in refuse("evaluate", "--recordings", "w=wavs", "--output", "one", cwd=folder)
    assert measured(folder, "one", "--workers", 1, "--force") == one


@pytest.mark.slow
def test_a_broken_recording_is_named_and_the_rest_is_measured(folder):
    (folder / "wavs/bad.wav").write_bytes(b"no sound at all")
    result = run("evaluate", "--recordings", "w=wavs", "--workers", 1, "--output", "out", cwd=folder, code=1)
    assert "failed: w/bad" in result.stderr
    summary = json.loads((folder / "out/results.json").read_text(encoding="utf-8"))["systems"][0]["summary"]
    assert (summary["clips"], summary["failed"]) == (2, 1)


def test_every_problem_of_a_request_is_told_at_once(folder):
    message = refuse("evaluate", "--recordings", "w=gone", "--texts", "none.txt", "--top-p", 0.5, cwd=folder)
    for part in ("no folder gone", "no file none.txt", "--texts has no effect", "--top-p has no effect"):
        assert part in message


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ((), "nothing to measure"),
        (("--recordings", "w=wavs", "--recordings", "W=wavs"), "name of its own"),
        (("--codec", "c=texts.txt"), "--codec needs --clips"),
        (("--checkpoint", "c=wavs"), "--checkpoint needs --texts"),
        (("--recordings", "w=wavs", "--measures", "similarity"), "similarity needs --speaker"),
        (("--checkpoint", "c=wavs", "--texts", "texts.txt", "--measures", "quality"), "no codec"),
    ],
)
def test_a_wrong_request_ends_with_code_2_and_one_message(folder, flags, part):
    assert part in refuse("evaluate", *flags, cwd=folder)
    assert not (folder / "output").exists()


@pytest.mark.parametrize("flag", [("--recordings", "../w=wavs"), ("--recordings", "wavs"), ("--measures", "beauty")])
def test_a_malformed_flag_ends_with_code_2(folder, flag):
    assert "usage:" in run("evaluate", *flag, cwd=folder, code=2).stderr


def test_help_answers_without_torch(folder):
    code = "import sys; from fish_speech.evaluate import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert "--speaker" in said.stdout and said.stdout.splitlines()[-1] == "False"
