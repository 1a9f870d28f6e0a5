"""Every command of the users' guide that fine-tunes, continues or lists, as it is typed there, in stories as users live them.

Each story has a workspace of its own and types its commands one after another, on a small base model. Only this is
changed, so that a story takes seconds instead of hours:
- `poetry run python` is the Python that runs the tests;
- `--max-steps` above 100 becomes the number in STEPS; 100 stays 100, and so do the steps that others start from;
- `--device cpu` is appended where no device is named, `--max-length 128` where something is trained;
- `--sample-every-n-steps 0` is appended to training and `--tournament-texts 0` to full pipelines, except where SPEAKING says
  that the voice is to be heard; there one text is spoken;
- the video's address is one of a page on loopback, and whisper's weights are pocketsphinx, as in test_guide_prepare.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import soundfile
import torch

from fish_speech.checkpoint import list_checkpoints, read_file, read_state_dict

from ..prepare.long_recordings import long_recording
from ..prepare.media_server import MediaServer
from .scripts import BASE, REPO, data_set, leftovers, record, refuse, run

GUIDE = REPO.parent / "shared/guides/fine-tuning-guide.en.md"
SECTIONS = ("Model Fine-tuning", "Resume Training", "Examples")

FINETUNE = "poetry run python finetune_tts.py --project"
PREPARE = "poetry run python prepare_dataset.py --input"
NOTES = "--data-dir training_data/note_lm"
STEP_100 = "--resume-from-checkpoint fish-speech/results/{}/checkpoints/step_000000100.ckpt"
COMMANDS = {
    # Model Fine-tuning
    "pipeline": f"{FINETUNE} my_custom_voice --data-dir training_data/my_voice --model-version 1.5 --full-pipeline "
    "--max-steps 1000 --batch-size 4 --learning-rate 1e-4",
    "prepare": f"{FINETUNE} my_custom_voice --data-dir raw_audio/ --prepare-data",
    "extract": f"{FINETUNE} my_custom_voice --data-dir training_data/my_custom_voice --extract-tokens "
    "--batch-size-extract 16",
    "train": f"{FINETUNE} my_custom_voice --data-dir training_data/my_custom_voice --train --max-steps 200 "
    "--batch-size 2 --learning-rate 5e-5",
    "merge": f"{FINETUNE} my_custom_voice --merge-weights --data-dir training_data/my_custom_voice",
    "merge step 2": f"{FINETUNE} note_lm_step2 --merge-weights {NOTES}",
    "pronunciation": f"{FINETUNE} quick_pronunciation --data-dir training_data/my_voice --train --max-steps 100 "
    "--batch-size 2 --learning-rate 2e-5",
    "timbre 1": f"{FINETUNE} voice_timbre_stage1 --data-dir training_data/my_voice --train --max-steps 300 "
    "--batch-size 2 --learning-rate 2e-5",
    "timbre 2": f"{FINETUNE} voice_timbre_stage2 --data-dir training_data/my_voice --train --max-steps 500 "
    "--batch-size 1 --learning-rate 1e-5 --checkpoint-path results/voice_timbre_stage1/checkpoints/",
    # Resume Training
    "list step 2": f"{FINETUNE} note_lm_step2 {NOTES} --list-checkpoints",
    "step 3 from latest": f"{FINETUNE} note_lm_step3 {NOTES} --train --max-steps 300 --batch-size 8 "
    "--learning-rate 1.2e-5 --resume-latest",
    "step 3 from file": f"{FINETUNE} note_lm_step3 {NOTES} --train --max-steps 300 --batch-size 8 "
    f"--learning-rate 1.2e-5 {STEP_100.format('note_lm_step2')}",
    "stage 1": f"{FINETUNE} note_lm_stage1 {NOTES} --train --max-steps 200 --batch-size 4 --learning-rate 5e-6",
    "stage 2": f"{FINETUNE} note_lm_stage2 {NOTES} --train --max-steps 300 --batch-size 8 --learning-rate 1e-5 "
    "--resume-latest",
    "stage 3": f"{FINETUNE} note_lm_final {NOTES} --train --max-steps 200 --batch-size 8 --learning-rate 8e-6 "
    "--resume-latest",
    "list base": f"{FINETUNE} note_lm_base {NOTES} --list-checkpoints",
    "experiment 1": f"{FINETUNE} note_lm_exp1 {NOTES} --train --max-steps 150 --batch-size 6 --learning-rate 1.5e-5 "
    f"{STEP_100.format('note_lm_base')}",
    "experiment 2": f"{FINETUNE} note_lm_exp2 {NOTES} --train --max-steps 150 --batch-size 4 --learning-rate 2e-5 "
    f"{STEP_100.format('note_lm_base')}",
    "improved": f"{FINETUNE} note_lm_improved {NOTES} --train --max-steps 250 --batch-size 8 --learning-rate 1.2e-5 "
    "--resume-latest",
    "final": f"{FINETUNE} note_lm_final {NOTES} --train --max-steps 200 --batch-size 8 --learning-rate 8e-6 "
    "--resume-latest",
    "list none": f"{FINETUNE} your_project {NOTES} --list-checkpoints",
    # Examples
    "podcast": f'{PREPARE} "https://youtube.com/watch?v=PODCAST_ID" --output training_data/podcast_host --speaker '
    '"PodcastHost" --youtube --auto-transcribe --whisper-model large --split-long',
    "podcast voice": f"{FINETUNE} podcast_voice --data-dir training_data/podcast_host --full-pipeline --max-steps 1500 "
    "--batch-size 4",
    "audiobook": f"{PREPARE} samples/ --output training_data/note_lm --normalize --split-long --auto-transcribe "
    "--whisper-model base",
    "audiobook voice": f"{FINETUNE} audiobook_narrator --data-dir training_data/narrator --full-pipeline --max-steps 200 "
    "--batch-size 2 --learning-rate 2e-5",
    "own": f'{PREPARE} my_voice/recordings --output training_data/my_voice --speaker "MyVoice" --normalize --split-long',
    "own voice": f"{FINETUNE} my_personal_voice --data-dir training_data/my_voice --full-pipeline --max-steps 1000 "
    "--batch-size 4 --learning-rate 1e-4 --device mps",
}
# From the sections behind: several speakers, going on with a merged model, LoRA shapes.
FURTHER = {
    "speaker 1": f"{PREPARE} speaker1_data/ --output training_data/multi_voice --speaker Speaker1",
    "speaker 2": f"{PREPARE} speaker2_data/ --output training_data/multi_voice --speaker Speaker2",
    "two speakers": f"{FINETUNE} multi_voice_model --data-dir training_data/multi_voice --full-pipeline",
    "incremental": f"{FINETUNE} my_voice_v2 --data-dir new_training_data/ --train "
    "--pretrained-ckpt-path checkpoints/my_custom_voice-merged/",
}
SHAPES = ("r_4_alpha_8", "r_8_alpha_16", "r_16_alpha_32")
STEPS = {"150": "4", "200": "4", "250": "4", "300": "6", "500": "8", "1000": "6", "1500": "6"}
DEFAULT_STEPS = ("--max-steps", "4")  # for commands that leave it to the recipe, which says 300
SPEAKING = {"pipeline", "podcast voice"}
MERGED = ("model.pth", "tokenizer.tiktoken", "config.json", "special_tokens.json")


def typed(name: str, page: str = "") -> list[str]:
    """The words of a command after `poetry run python`, with what the docstring above lists changed."""
    words = shlex.split({**COMMANDS, **FURTHER}[name])[3:]
    if words[0] == "prepare_dataset.py":
        if "--whisper-model" in words:
            at = words.index("--whisper-model")
            words[at : at + 2] = ["--asr", "pocketsphinx"]
        return [page if word.startswith("https://youtube.com/") else word for word in words]
    full = "--full-pipeline" in words
    if full or "--train" in words:
        if "--max-steps" in words:
            at = words.index("--max-steps") + 1
            words[at] = STEPS.get(words[at], words[at])
        else:
            words += DEFAULT_STEPS
        words += ["--max-length", "128"]
        words += [] if name in SPEAKING else ["--sample-every-n-steps", "0"]
    if full:
        words += ["--tournament-texts", "1" if name in SPEAKING else "0"]
    if (full or {"--extract-tokens", "--train", "--prepare-data"} & {*words}) and "--device" not in words:
        words += ["--device", "cpu"]
    return words


def steps_of(name: str) -> int:
    words = typed(name)
    return int(words[words.index("--max-steps") + 1])


def do(name: str, folder: Path, page: str = "") -> CompletedProcess[str]:
    """Type a command that must end well; of a training look whether it made what the guide promises."""
    result = run(*typed(name, page), cwd=folder)
    words = typed(name)
    project = words[words.index("--project") + 1] if "--project" in words else ""
    if "--train" in words or "--full-pipeline" in words:
        assert_trained(folder, project, steps_of(name))
    if "--merge-weights" in words or "--full-pipeline" in words:
        assert_merged(folder, project)
    assert leftovers(folder) == []
    return result


def assert_trained(folder: Path, project: str, steps: int) -> None:
    """Look for results/PROJECT as "Training Logs" shows it, with a whole checkpoint of the last step."""
    made = folder / "results" / project
    assert all((made / name).is_dir() for name in ("checkpoints", "logs", "training_configs"))
    last = list_checkpoints(made / "checkpoints")[-1]
    assert last.path.name == f"step_{steps:09d}.ckpt"
    state = read_state_dict(last.path)
    assert state and all(".lora_" in name and tensor.isfinite().all() for name, tensor in state.items())
    assert any(tensor.any() for name, tensor in state.items() if name.endswith("lora_B")), "nothing was learned"


def assert_merged(folder: Path, project: str) -> None:
    """Look for the four files of "After Fine-tuning Completion", with weights that are not the base's."""
    merged = folder / f"checkpoints/{project}-merged"
    assert all((merged / name).stat().st_size > 0 for name in MERGED)
    base, voice = (read_state_dict(path / "model.pth") for path in (folder / BASE, merged))
    assert {name: tensor.shape for name, tensor in base.items()} == {name: t.shape for name, t in voice.items()}
    assert not all(torch.equal(base[name], voice[name]) for name in base)


def run_info(folder: Path, project: str) -> dict:
    """What the newest checkpoint of a project says of its run."""
    return read_file(list_checkpoints(folder / f"results/{project}/checkpoints")[-1].path)["fish_speech"]


def started_from(folder: Path, project: str, checkpoint: str, said: str, rate: str) -> None:
    """Look whether a training was a warm start from `checkpoint`, at step 0, with the learning rate as typed."""
    assert f"warm start: weights from {checkpoint}, step 0, learning rate {float(rate):g}" in said.replace("\\", "/")
    assert Path(run_info(folder, project)["warm_start"]).as_posix() in checkpoint
    assert (folder / f"results/{project}/training_configs/from_step_000000000.yaml").is_file()


def clips(folder: Path, count: int = 12) -> Path:
    """Write a data set as "Manual Preparation" shows it: SPEAKER/audio_001.wav with audio_001.lab."""
    for number in range(1, count + 1):
        path = folder / f"SPEAKER_NAME/audio_{number:03d}.wav"
        record(path, 0.8 + number % 5 / 10, number, None, rate=44100)
        path.with_suffix(".lab").write_text(f"Clip number {number}.", encoding="utf-8")
    return folder


def copy_samples(folder: Path, first: int, last: int) -> None:
    """Copy some of the recordings that come with the repository, with their texts."""
    folder.mkdir(parents=True)
    for clip in sorted((REPO / "samples/allison").glob("*.flac"))[first:last]:
        shutil.copy2(clip, folder)
        shutil.copy2(clip.with_suffix(".txt"), folder)


@pytest.fixture()
def notes(workspace) -> Path:
    """A workspace whose data set training_data/note_lm has its codes."""
    data_set(workspace / "training_data/note_lm", 12, frames=6)
    return workspace


def train_to(folder: Path, project: str, steps: int) -> None:
    """Train a project that the guide takes for granted, with a checkpoint at each hundredth step."""
    arguments = ("--project", project, "--data-dir", "training_data/note_lm", "--train", "--max-steps", steps)
    rest = ("--batch-size", 1, "--max-length", 128, "--learning-rate", 1e-5, "--sample-every-n-steps", 0)
    run("finetune_tts.py", *arguments, *rest, "--device", "cpu", cwd=folder)


@pytest.mark.skipif(not GUIDE.is_file(), reason=f"{GUIDE} is not on this machine")
def test_no_command_of_the_guide_is_missing_here():
    lines = GUIDE.read_text(encoding="utf-8").split("\n## ")
    chosen = [part for part in lines if part.split("\n")[0] in SECTIONS]
    assert len(chosen) == len(SECTIONS)
    blocks = [block for part in chosen for block in re.findall(r"```bash\n(.*?)```", part, re.DOTALL)]
    joined = "\n".join(blocks).replace("\\\n", " ")
    found = [shlex.split(line, comments=True) for line in joined.splitlines()]
    assert [words for words in found if words] == [shlex.split(command) for command in COMMANDS.values()]


def test_every_command_is_typed_by_a_story():
    source = Path(__file__).read_text(encoding="utf-8").partition("def test_no_command")[2]
    assert [name for name in (*COMMANDS, *FURTHER) if f'"{name}"' not in source] == []


@pytest.mark.slow
def test_the_full_pipeline_makes_a_voice_and_more_recordings_go_on_from_it(workspace):
    clips(workspace / "training_data/my_voice")
    said = do("pipeline", workspace).stderr
    assert "1e-04" in said or "0.0001" in said
    assert "above 5e-05" in said, "the guide's own rate is beyond its safe range, and the plan says so"
    assert len(list((workspace / "training_data/my_voice").rglob("*.npy"))) == 12
    samples = {path.name for path in (workspace / "results/my_custom_voice/samples").glob("*.wav")}
    assert samples == {"step_000000000_1.wav", "step_000000000_2.wav"}, "heard before training; the next is due at 100"
    assert (workspace / "results/my_custom_voice/tournament/results.json").is_file()

    data_set(workspace / "new_training_data", 12, base=50, frames=6)
    do("incremental", workspace)
    assert Path(run_info(workspace, "my_voice_v2")["base"]) == Path("checkpoints/my_custom_voice-merged")
    merge = ("--project", "my_voice_v2", "--merge-weights")
    run("finetune_tts.py", *merge, cwd=workspace)  # the base that it was trained on is found by itself
    assert_merged(workspace, "my_voice_v2")


@pytest.mark.slow
def test_step_by_step(workspace):
    for number in range(12):
        record(workspace / f"raw_audio/take_{number:02d}.wav", 1 + number % 4 / 10, number, f"Take number {number}.")
    do("prepare", workspace)
    made = workspace / "training_data/my_custom_voice"
    assert len(list(made.rglob("*.wav"))) == len(list(made.rglob("*.lab"))) == 12
    assert (made / "dataset_summary.json").is_file()
    do("extract", workspace)
    assert len(list(made.rglob("*.npy"))) == 12
    do("train", workspace)
    assert not (workspace / "checkpoints/my_custom_voice-merged").exists()
    do("merge", workspace)


@pytest.mark.slow
def test_a_full_pipeline_on_raw_recordings_prepares_first(workspace):
    for number in range(12):
        record(workspace / f"raw_audio/take_{number:02d}.wav", 1 + number % 4 / 10, number, f"Take number {number}.")
    arguments = ("--project", "raw", "--data-dir", "raw_audio/", "--full-pipeline", "--max-steps", 4)
    fast = ("--max-length", 128, "--sample-every-n-steps", 0, "--tournament-texts", 0, "--device", "cpu")
    said = run("finetune_tts.py", *arguments, *fast, cwd=workspace).stderr
    stages = re.findall(r"^\[\d/\d\] (\w+):", said, re.MULTILINE)
    assert stages == ["prepare_dataset", "extract_vq", "build_dataset", "train", "merge_lora"]
    assert len(list((workspace / "training_data/raw").rglob("*.lab"))) == 12
    assert_trained(workspace, "raw", 4)
    assert_merged(workspace, "raw")
    assert leftovers(workspace) == []


@pytest.mark.slow
def test_pronunciation_in_a_hundred_steps_and_timbre_in_two_stages(workspace):
    data_set(workspace / "training_data/my_voice", 12, frames=6)
    said = do("pronunciation", workspace).stderr
    assert "step 100/100" in said and "above 5e-05" not in said and "more than 300" not in said
    do("timbre 1", workspace)
    first = f"results/voice_timbre_stage1/checkpoints/step_{steps_of('timbre 1'):09d}.ckpt"
    started_from(workspace, "voice_timbre_stage2", first, do("timbre 2", workspace).stderr, "1e-5")


@pytest.mark.slow
def test_listing_merging_and_going_on_from_the_latest_or_from_one(notes):
    train_to(notes, "note_lm_step2", 200)
    lines = do("list step 2", notes).stdout.splitlines()
    assert lines[0] == "Available checkpoints for project 'note_lm_step2':"
    for line, step in zip(lines[1:3], (100, 200), strict=True):
        assert re.fullmatch(rf"step_{step:09d}\.ckpt \(\d+\.\d MB, \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)", line)
    assert lines[3] == "Latest: step_000000200.ckpt"
    do("merge step 2", notes)
    newest = read_state_dict(notes / "checkpoints/note_lm_step2-merged/model.pth")
    run(*typed("merge step 2"), "--checkpoint-step", "100", cwd=notes)  # as "Try different checkpoint" says
    assert_merged(notes, "note_lm_step2")
    earlier = read_state_dict(notes / "checkpoints/note_lm_step2-merged/model.pth")
    assert not all(torch.equal(newest[name], earlier[name]) for name in newest)

    own = "results/note_lm_step2/checkpoints"
    said = do("step 3 from latest", notes).stderr
    started_from(notes, "note_lm_step3", f"{own}/step_000000200.ckpt", said, "1.2e-5")
    # The guide's second way to make the same project, so the first must be gone.
    refused = refuse(*typed("step 3 from file"), cwd=notes)
    assert "note_lm_step3 has checkpoints already" in refused
    shutil.rmtree(notes / "results/note_lm_step3")
    said = do("step 3 from file", notes).stderr
    started_from(notes, "note_lm_step3", f"{own}/step_000000100.ckpt", said, "1.2e-5")

    third = f"results/note_lm_step3/checkpoints/step_{steps_of('step 3 from file'):09d}.ckpt"
    started_from(notes, "note_lm_improved", third, do("improved", notes).stderr, "1.2e-5")
    improved = f"results/note_lm_improved/checkpoints/step_{steps_of('improved'):09d}.ckpt"
    started_from(notes, "note_lm_final", improved, do("final", notes).stderr, "8e-6")


@pytest.mark.slow
def test_three_stages_under_new_names_go_on_from_each_other(notes):
    do("stage 1", notes)
    first = f"results/note_lm_stage1/checkpoints/step_{steps_of('stage 1'):09d}.ckpt"
    started_from(notes, "note_lm_stage2", first, do("stage 2", notes).stderr, "1e-5")
    second = f"results/note_lm_stage2/checkpoints/step_{steps_of('stage 2'):09d}.ckpt"
    started_from(notes, "note_lm_final", second, do("stage 3", notes).stderr, "8e-6")


@pytest.mark.slow
def test_experiments_from_one_checkpoint_run_side_by_side(notes):
    train_to(notes, "note_lm_base", 100)
    assert "Latest: step_000000100.ckpt" in do("list base", notes).stdout
    before = (notes / "results/note_lm_base/checkpoints/step_000000100.ckpt").read_bytes()
    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(lambda name: run(*typed(name), cwd=notes), ("experiment 1", "experiment 2"))
    start = "results/note_lm_base/checkpoints/step_000000100.ckpt"
    for name, project, result, rate in (
        ("experiment 1", "note_lm_exp1", one, "1.5e-5"),
        ("experiment 2", "note_lm_exp2", two, "2e-5"),
    ):
        assert_trained(notes, project, steps_of(name))
        started_from(notes, project, start, result.stderr, rate)
    assert (notes / start).read_bytes() == before and leftovers(notes) == []


def test_listing_a_project_that_has_nothing_says_so(workspace):
    data_set(workspace / "training_data/note_lm", 1)
    assert "project your_project has no checkpoints" in refuse(*typed("list none"), cwd=workspace)


def test_two_ways_to_resume_at_once_are_refused(workspace):
    both = run(*typed("step 3 from file"), "--resume-latest", cwd=workspace, code=2).stderr
    assert "--resume-latest: not allowed with argument --resume-from-checkpoint" in both


@pytest.mark.slow
def test_a_podcast_becomes_a_voice(workspace):
    known = long_recording(limit=9)
    with MediaServer() as server:
        soundfile.write(workspace / "talk.wav", known.samples, known.sample_rate)
        server.files["/watch.html"] = b'<html><title>Talk</title><video src="/talk.wav"></video></html>'
        server.files["/talk.wav"] = (workspace / "talk.wav").read_bytes()
        do("podcast", workspace, server.url("/watch.html"))
    assert len(list((workspace / "training_data/podcast_host/PodcastHost").glob("*.wav"))) >= 2
    do("podcast voice", workspace)
    assert (workspace / "results/podcast_voice/tournament/results.json").is_file()


@pytest.mark.slow
def test_an_audiobook_becomes_a_voice(workspace):
    copy_samples(workspace / "samples", 0, 4)
    do("audiobook", workspace)
    # The guide prepares note_lm and trains on narrator: its reader has renamed the folder.
    (workspace / "training_data/note_lm").rename(workspace / "training_data/narrator")
    do("audiobook voice", workspace)


@pytest.mark.slow
def test_the_own_voice_is_trained_on_mps_or_told_that_there_is_none(workspace):
    known = long_recording(limit=5)
    (workspace / "my_voice/recordings").mkdir(parents=True)
    soundfile.write(workspace / "my_voice/recordings/session_01.wav", known.samples, known.sample_rate)
    (workspace / "my_voice/recordings/session_01.txt").write_text(known.text, encoding="utf-8")
    do("own", workspace)
    if torch.backends.mps.is_available():
        do("own voice", workspace)
        return
    refused = refuse(*typed("own voice"), cwd=workspace)
    assert "--device mps asks for a device that is not available" in refused and "use --device auto" in refused
    assert not list(workspace.rglob("*.ckpt"))
    words = typed("own voice")
    words[words.index("--device") + 1] = "cpu"
    run(*words, cwd=workspace)
    assert_trained(workspace, "my_personal_voice", steps_of("own voice"))
    assert_merged(workspace, "my_personal_voice")


@pytest.mark.slow
def test_two_speakers_become_one_model(workspace):
    copy_samples(workspace / "speaker1_data", 0, 3)
    copy_samples(workspace / "speaker2_data", 3, 6)
    do("speaker 1", workspace)
    do("speaker 2", workspace)
    said = do("two speakers", workspace).stderr
    assert "6 clips of 2 speakers" in said
    named = read_file(next((workspace / "results/multi_voice_model/checkpoints").glob("*.ckpt")))
    assert named["global_step"] == steps_of("two speakers")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_each_lora_shape_of_the_guide_trains_and_merges(workspace, shape):
    data_set(workspace / "training_data/my_voice", 6, frames=6)
    arguments = ("--project", "shapes", "--data-dir", "training_data/my_voice", "--train", "--merge-weights")
    fast = ("--max-steps", 4, "--max-length", 128, "--sample-every-n-steps", 0, "--device", "cpu")
    run("finetune_tts.py", *arguments, "--lora-config", shape, *fast, cwd=workspace)
    assert_trained(workspace, "shapes", 4)
    assert_merged(workspace, "shapes")
    rank, alpha = (int(number) for number in re.findall(r"\d+", shape))
    state = read_state_dict(list_checkpoints(workspace / "results/shapes/checkpoints")[-1].path)
    assert {min(tensor.shape) for tensor in state.values()} >= {rank}
    assert run_info(workspace, "shapes")["lora"]["r"] == rank
    assert run_info(workspace, "shapes")["lora"]["lora_alpha"] == alpha
