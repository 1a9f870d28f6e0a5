"""The commands of the official guide to fine-tuning S1-mini, as they are, one after another on a small base model.

Only this is changed:
- the official programs are ours, and the base and the packed data are named to the training, as docs/upstream-commands.md
  says of each; the download is a copy, `fap` is prepare_dataset.py;
- `modded_dac_vq`, the shape of the released codec, is the yaml of the small one;
- training is told `trainer.max_steps=10`, the step that the guide merges, and to use samples and a device that suit a test.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fish_speech.audio import read_audio
from fish_speech.checkpoint import read_state_dict

from .families import FAMILIES
from .scripts import REPO, S1_BASE, leftovers, put_base, put_samples, run

GUIDE = REPO.parent / "shared/guides/openaudio-s1-mini-finetune.ko.md"
DOWNLOAD = "huggingface-cli download fishaudio/openaudio-s1-mini --local-dir checkpoints/openaudio-s1-mini"
LOUDNESS = "fap loudness-norm data-raw data --clean"
EXTRACT = (
    "python tools/vqgan/extract_vq.py data --num-workers 1 --batch-size 16 "
    '--config-name "modded_dac_vq" --checkpoint-path "checkpoints/openaudio-s1-mini/codec.pth"'
)
PACK = (
    'python tools/llama/build_dataset.py --input "data" --output "data/protos" --text-extension .lab --num-workers 16'
)
TRAIN = (
    "python fish_speech/train.py --config-name text2semantic_finetune project=$project "
    "+lora@model.model.lora_config=r_8_alpha_16"
)
MERGE = (
    "python tools/llama/merge_lora.py --lora-config r_8_alpha_16 --base-weight checkpoints/openaudio-s1-mini "
    "--lora-weight results/$project/checkpoints/step_000000010.ckpt --output checkpoints/openaudio-s1-mini-yth-lora/"
)
COMMANDS = (LOUDNESS, DOWNLOAD, EXTRACT, PACK, DOWNLOAD, TRAIN, MERGE)
OURS = {
    "tools/vqgan/extract_vq.py": "extract_vq",
    "tools/llama/build_dataset.py": "build_dataset",
    "fish_speech/train.py": "train",
    "tools/llama/merge_lora.py": "merge_lora",
}
NAMED_TO_TRAINING = ("pretrained_ckpt_path=checkpoints/openaudio-s1-mini", "train_dataset.proto_files=[data/protos]")
IN_A_TEST = ("trainer.max_steps=10", "data.pack_length=128", "data.batch_size=2", "device=cpu")
CLIPS = {  # as the guide's tree shows them: of two people, in two formats, with dots in their names
    "SPK1/21.15-26.44.mp3": "conf-kicked",
    "SPK1/27.51-29.98.mp3": "transfer",
    "SPK1/30.1-32.71.mp3": "tt-weasels",
    "SPK2/38.79-40.85.mp3": "vm-dialout",
    "SPK2/41.2-43.3.wav": "priv-recordintro",
    "SPK2/44.2-46.9.flac": "vm-sorry",
}
CODEBOOKS = FAMILIES["s1-mini"].codebooks
RATE, SAMPLES_PER_FRAME = FAMILIES["s1-mini"].sample_rate, FAMILIES["s1-mini"].samples_per_frame


def typed(command: str, project: str = "anna") -> list[str]:
    """The words of a command with what the docstring above lists changed."""
    words = shlex.split(command.replace("$project", project))[1:]
    words[0] = OURS[words[0]]
    words = [f"{S1_BASE}/codec.yaml" if word == "modded_dac_vq" else word for word in words]
    return [*words, *NAMED_TO_TRAINING, *IN_A_TEST] if words[0] == "train" else words


@pytest.mark.skipif(not GUIDE.is_file(), reason=f"{GUIDE} is not on this machine")
def test_no_command_of_the_guide_is_missing_here():
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.strip()]
    assert found == [shlex.split(command) for command in COMMANDS]


def test_the_docs_name_our_program_for_each_official_one():
    told = (REPO / "docs/upstream-commands.md").read_text(encoding="utf-8").partition("## OpenAudio S1-mini")[2]
    for official, ours in OURS.items():
        assert re.search(rf"python {re.escape(official)} .*\| `python -m fish_speech\.{ours} ", told), official
    for word in NAMED_TO_TRAINING:
        assert word in (told if "ckpt" in word else (REPO / "docs/upstream-commands.md").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_guides_commands_one_by_one_make_a_voice(tmp_path, small_s1_base):
    samples = put_samples(tmp_path / "samples", *CLIPS.values())
    for name, sample in CLIPS.items():
        clip = tmp_path / "data" / name
        clip.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(clip, *soundfile.read(samples / f"{sample}.flac"))
        words = (samples / f"{sample}.txt").read_text(encoding="utf-8")
        clip.with_name(f"{clip.stem}.lab").write_text(words, encoding="utf-8")
    put_base(tmp_path, small_s1_base, S1_BASE)

    assert "6 clips have codes: 6 encoded" in run(*typed(EXTRACT), cwd=tmp_path).stdout
    for name in CLIPS:
        clip = tmp_path / "data" / name
        codes = np.load(clip.with_suffix(".npy"))
        frames = -(-len(read_audio(clip, RATE)[0]) // SAMPLES_PER_FRAME)
        assert codes.shape == (CODEBOOKS, frames), name

    assert "1 shards, 6 clips" in run(*typed(PACK), cwd=tmp_path).stdout
    assert list((tmp_path / "data/protos").glob("*.protos"))

    said = run(*typed(TRAIN), cwd=tmp_path).stderr
    assert "each epoch visits 6 of 6 clips (100 %)" in said and "step 10/10  loss " in said
    adapters = read_state_dict(tmp_path / "results/anna/checkpoints/step_000000010.ckpt")
    assert adapters and all(".lora_" in name for name in adapters)

    run(*typed(MERGE), cwd=tmp_path)
    voice = tmp_path / "checkpoints/openaudio-s1-mini-yth-lora"
    assert {path.name for path in (tmp_path / S1_BASE).iterdir()} <= {path.name for path in voice.iterdir()}
    base, merged = (read_state_dict(folder / "model.pth") for folder in (tmp_path / S1_BASE, voice))
    assert not all(torch.equal(base[name], tensor) for name, tensor in merged.items())
    assert json.loads((voice / "voice.json").read_text(encoding="utf-8"))["step"] == 10

    arguments = ("--model-path", voice, "-o", "hello.wav", "--max-new-tokens", 12, "--device", "cpu")
    run("cli_tts.py", "Hello there.", *arguments, cwd=tmp_path)
    assert soundfile.info(tmp_path / "hello.wav").samplerate == RATE
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_loudness_is_made_equal_where_the_guide_says(tmp_path, small_s1_base):
    """`fap loudness-norm data-raw data` is `prepare_dataset.py --input data-raw --output data`, as the docs say."""
    samples = put_samples(tmp_path / "data-raw/SPK1", "conf-kicked", "transfer")
    loud, rate = soundfile.read(samples / "transfer.flac")
    soundfile.write(samples / "transfer.flac", 0.05 * loud, rate)
    run("prepare_dataset.py", "--input", "data-raw", "--output", "data", "--normalize", cwd=tmp_path)
    levels = [np.sqrt(np.mean(soundfile.read(path)[0] ** 2)) for path in Path(tmp_path / "data").rglob("*.wav")]
    assert len(levels) == 2 and max(levels) / min(levels) < 2
    put_base(tmp_path, small_s1_base, S1_BASE)
    assert "2 clips have codes: 2 encoded" in run(*typed(EXTRACT), cwd=tmp_path).stdout
