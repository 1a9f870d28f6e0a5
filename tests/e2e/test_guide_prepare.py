"""Every command of the users' guide that prepares data, as it is typed there.

Two things cannot be had here and are replaced: the video's address by one of a media page on loopback, and whisper's
weights by pocketsphinx. Whisper itself is run in the last test, on a file of its format with random weights.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile

from ..prepare.long_recordings import long_recording
from ..prepare.media_server import MediaServer
from ..recognition.conftest import DIMS, random_whisper
from .scripts import REPO, contents, leftovers, run

pytestmark = pytest.mark.slow

YOUTUBE = '--output training_data/youtube_voice --speaker "YouTuber_Name" --youtube --auto-transcribe'
VIDEO = 'prepare_dataset.py --input "https://youtube.com/watch?v=VIDEO_ID"'
FOLDER = "prepare_dataset.py --input samples --output training_data/note_lm --normalize --split-long --auto-transcribe"
COMMANDS = {
    "folder": FOLDER,
    "ten seconds": f"{VIDEO} {YOUTUBE} --whisper-model medium --segment-duration 10",
    "fifteen seconds": f"{VIDEO} {YOUTUBE} --whisper-model medium --segment-duration 15",
    "twenty minutes": f"{VIDEO} {YOUTUBE} --whisper-model medium --max-duration 20",
    "thirty minutes": f"{VIDEO} {YOUTUBE} --whisper-model medium --segment-duration 12 --max-duration 30",
    "podcast": 'prepare_dataset.py --input "https://youtube.com/watch?v=PODCAST_ID" '
    '--output training_data/podcast_host --speaker "PodcastHost" --youtube --auto-transcribe --whisper-model large '
    "--split-long",
    "audiobook": FOLDER.replace("samples", "samples/") + " --whisper-model base",
    "own voice": "prepare_dataset.py --input my_voice/recordings --output training_data/my_voice --speaker "
    '"MyVoice" --normalize --split-long',
    "first speaker": "prepare_dataset.py --input speaker1_data/ --output training_data/multi_voice --speaker Speaker1",
    "second speaker": "prepare_dataset.py --input speaker2_data/ --output training_data/multi_voice --speaker Speaker2",
    "check": "prepare_dataset.py --input training_data/ --output check_data/ --auto-transcribe",
}


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    """A recording of 38 s with its text: eight clips, joined with gaps."""
    known = long_recording(limit=9)
    path = tmp_path_factory.mktemp("session") / "session_01.wav"
    soundfile.write(path, known.samples, known.sample_rate)
    path.with_suffix(".txt").write_text(known.text, encoding="utf-8")
    return path


@pytest.fixture()
def workspace(tmp_path, session) -> Path:
    """The folders that the guide's reader has."""
    clips = sorted((REPO / "samples/allison").glob("*.flac"))
    for folder, chosen in {"samples": clips[:4], "speaker1_data": clips[4:6], "speaker2_data": clips[6:8]}.items():
        (tmp_path / folder).mkdir()
        for clip in chosen:
            shutil.copy2(clip, tmp_path / folder)
            shutil.copy2(clip.with_suffix(".txt"), tmp_path / folder)
    (tmp_path / "my_voice/recordings").mkdir(parents=True)
    for path in (session, session.with_suffix(".txt")):
        shutil.copy2(path, tmp_path / "my_voice/recordings")
    return tmp_path


def typed(name: str, page: str = "") -> list[str]:
    """The arguments of a command, with what cannot be had here replaced."""
    words = shlex.split(COMMANDS[name])
    if "--whisper-model" in words:
        at = words.index("--whisper-model")
        words[at : at + 2] = ["--asr", "pocketsphinx"]
    return [page if word.startswith("https://youtube.com/") else word for word in words]


def look(folder: Path) -> tuple[list[dict], dict]:
    """Check what every data set must be; return the kept rows and the summary."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = json.loads((folder / "dataset_summary.json").read_text(encoding="utf-8"))
    kept = [row for row in rows if row["clip"]]
    assert not leftovers(folder)
    assert summary["total_files"] == len(kept) == len(list(folder.rglob("*.wav"))) == len(list(folder.rglob("*.lab")))
    told = summary["input"]
    spent = told["seconds_kept"] + told["seconds_left_out"] + told["seconds_of_pauses"]
    assert spent == pytest.approx(told["seconds"], abs=0.01)
    for row in kept:
        info = soundfile.info(folder / row["clip"])
        assert (info.samplerate, info.channels, info.subtype) == (44100, 1, "PCM_16")
        assert row["text"] and row["lufs"] == pytest.approx(-23, abs=1.5)
    return kept, summary


@pytest.mark.parametrize("name", ["folder", "audiobook"])
def test_a_local_folder(workspace, name):
    run(*typed(name), cwd=workspace)
    kept, _ = look(workspace / "training_data/note_lm")
    assert len(kept) == 4 and all(row["transcript"] == "txt" for row in kept)
    assert all(row["confidence"] > 0.3 for row in kept), "the texts are right, and were checked"


@pytest.mark.parametrize("name", ["ten seconds", "fifteen seconds", "twenty minutes", "thirty minutes", "podcast"])
def test_a_video(workspace, session, name):
    with MediaServer() as server:
        server.files["/watch.html"] = b'<html><title>Talk</title><video src="/talk.wav"></video></html>'
        server.files["/talk.wav"] = session.read_bytes()
        command = typed(name, server.url("/watch.html"))
        run(*command, cwd=workspace)
    folder = Path(command[command.index("--output") + 1])
    kept, summary = look(workspace / folder)
    assert summary["speakers"] == [command[command.index("--speaker") + 1]]
    assert len(kept) >= 2 and all(row["transcript"] is None or "sphinx" in row["transcript"] for row in kept)
    assert all(row["url"].startswith("http://127.0.0.1") for row in kept)
    before = contents(workspace / folder)
    run(*command, cwd=workspace)  # the page is gone: nothing is fetched, recognised or cut again
    assert contents(workspace / folder) == before


def test_a_recording_with_its_text(workspace):
    run(*typed("own voice"), cwd=workspace)
    kept, _ = look(workspace / "training_data/my_voice")
    spoken = (workspace / "my_voice/recordings/session_01.txt").read_text(encoding="utf-8").split()
    assert len(kept) >= 3 and sum(len(row["text"].split()) for row in kept) >= 0.8 * len(spoken)


def test_two_speakers_and_a_check_of_the_whole_set(workspace):
    run(*typed("first speaker"), cwd=workspace)
    run(*typed("second speaker"), cwd=workspace)
    kept, summary = look(workspace / "training_data/multi_voice")
    assert summary["speakers"] == ["Speaker1", "Speaker2"] and len(kept) == 4
    run(*typed("check"), cwd=workspace)
    checked, _ = look(workspace / "check_data")
    assert sorted(row["text"] for row in checked) == sorted(row["text"] for row in kept)
    for row in checked:
        again = soundfile.read(workspace / "check_data" / row["clip"], dtype="int16")[0]
        first = soundfile.read(row["source"], dtype="int16")[0]
        assert len(again) == len(first) and abs(again.astype(int) - first.astype(int)).max() <= 40


def test_whisper_hears_a_recording_and_garbage_is_left_out(workspace, session, tmp_path):
    import torch

    (workspace / "untold").mkdir()
    shutil.copy2(session, workspace / "untold/talk.wav")
    torch.save(random_whisper(DIMS), tmp_path / "random.pt")
    arguments = ("--input", "untold", "--output", "out", "--auto-transcribe", "--whisper-model", tmp_path / "random.pt")
    result = run("prepare_dataset.py", *arguments, "--device", "cpu", cwd=workspace, code=2)
    assert "none of 1 recordings can be used" in result.stderr
    rows = [json.loads(line) for line in (workspace / "out/manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 2 and all(row["clip"] is None and row["left_out"] for row in rows)
