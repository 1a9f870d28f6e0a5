"""The one command that makes minnow: each stage's command is one that its program takes, and they fit together."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from fish_speech import build_dataset, extract_vq, merge_lora, new_model, voice_pack
from fish_speech.train import compose_config, precision_of
from tools import minnow_corpus, train_minnow

from ..conftest import REPO


@pytest.fixture(params=["plain", "two words", "comma, (one) & it's v=1"])
def options(tmp_path, request) -> Namespace:
    return Namespace(
        work=tmp_path / request.param, codec_steps=7, head_steps=8, steps=9, workers=3, precision="bf16", device="cpu",
        discriminators=False,
    )  # fmt: skip


def codec_config(options):
    (command,) = train_minnow.codec(options)
    assert command[:2] == ["-m", "fish_speech.train_codec"]
    return compose_config("codec_train", command[2:])


def pretrain_config(options):
    (command,) = train_minnow.pretrain(options)
    assert command[:3] == ["-m", "fish_speech.train", "--config-name"]
    return compose_config(command[3], command[4:])


def test_the_codec_is_trained_on_the_corpus_and_ends_well_when_it_is_done(options):
    config = codec_config(options)
    assert [Path(s.path) for s in config.data.train] == [options.work / "corpus" / n for n in train_minnow.CODEC_SHARES]
    assert [Path(path) for path in config.data.validation] == [options.work / "corpus/codec_heldout/allison"]
    assert not {"codec_heldout", "lm_heldout"} & {name.split("/")[0] for name in train_minnow.CODEC_SHARES}
    assert (config.trainer.max_steps, precision_of(config.trainer.precision)) == (7, "bf16")
    assert config.reached_is_done and config.callbacks.export.dtype == "float16"
    assert Path(config.callbacks.export.folder) / "codec.pth" == train_minnow.encoder(options)


def test_the_language_model_is_trained_on_what_is_packed_from_the_codes_of_that_codec(options):
    extract, build, _ = train_minnow.codes(options)
    given = extract_vq.make_parser().parse_args(extract[2:])
    packed = build_dataset.parse_arguments(build[2:])
    config = pretrain_config(options)
    assert given.checkpoint_path == train_minnow.encoder(options) and given.num_workers == 3
    assert packed.input == [given.data] == [options.work / "corpus/lm"]
    assert [Path(path) for path in config.train_dataset.proto_files] == [packed.output]
    assert (config.trainer.max_steps, precision_of(config.trainer.precision)) == (9, "bf16-mixed")
    assert config.reached_is_done and not config.model.model.load_weights


def test_a_new_head_keeps_the_codes_and_is_what_is_shipped(options):
    first = train_minnow.encoder(options)
    first.parent.mkdir(parents=True)
    first.with_suffix(".yaml").write_text("head: {upsample_rates: [5, 40]}", encoding="utf-8")
    (command,) = train_minnow.head(options)
    config = compose_config("codec_train", command[2:])
    assert config.new_head and config.model.freeze_encoder and Path(config.pretrained_ckpt_path) == first
    assert config.model.adversarial_from is None and train_minnow.weights(options) == first
    second = Path(config.callbacks.export.folder) / "codec.pth"
    second.parent.mkdir(parents=True)
    second.touch()
    assert train_minnow.weights(options) == second


def test_a_run_is_never_asked_to_end_before_it_stands(options):
    checkpoints = options.work / "lm/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "step_000000040.ckpt").touch()
    assert pretrain_config(options).trainer.max_steps == 40


def test_an_untrained_folder_is_made_once_where_pretraining_looks_for_it(options, monkeypatch):
    made = []
    monkeypatch.setattr(new_model, "read_sentences", lambda path: [str(path)])
    monkeypatch.setattr(new_model, "make_folder", lambda *given: made.append(given) or "made")
    command = train_minnow.codes(options)[2]
    assert command[:2] == ["-m", "fish_speech.new_model"] and new_model.main(command[2:]) == 0
    folder, sentences, shape, merges = made[0]
    assert Path(pretrain_config(options).pretrained_ckpt_path) == folder and merges == 200
    assert sentences == [str(options.work / "corpus/lm")] and shape["num_codebooks"] == 6
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert len(train_minnow.codes(options)) == 2


def test_what_is_shipped_is_the_newest_of_that_training(options, monkeypatch):
    seen = []
    monkeypatch.setattr(merge_lora, "find_codec", lambda base, version, given: given)
    monkeypatch.setattr(merge_lora, "merge", lambda *given: seen.append(given) or {"step": 9})
    monkeypatch.setattr(voice_pack, "complete", lambda *given: None)
    (command,) = train_minnow.ship(options)
    assert command[:2] == ["-m", "fish_speech.merge_lora"] and merge_lora.main(command[2:]) == 0
    base, checkpoints, output, _, codec, _, shape, dtype = seen[0]
    config = pretrain_config(options)
    assert (base, checkpoints) == (Path(config.pretrained_ckpt_path), Path(config.paths.ckpt_dir))
    assert output == train_minnow.OUTPUT and codec == train_minnow.weights(options)
    assert dtype == "bfloat16" and shape is not None


def test_the_corpus_goes_where_the_other_stages_read(options, monkeypatch):
    seen = []
    monkeypatch.setattr(minnow_corpus, "build", seen.append)
    (command,) = train_minnow.corpus(options)
    assert (REPO / command[0]).is_file() and minnow_corpus.main(command[1:]) == 0
    assert seen[0].output == options.work / "corpus"
    voices = {name.split("/")[1] for name in train_minnow.CODEC_SHARES if name.startswith("lm/")}
    assert voices == set(seen[0].per_voice)


def test_an_unknown_stage_is_a_wrong_request(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train_minnow.main(["--work", str(tmp_path), "codec", "dance"])
    assert ended.value.code == 2 and "dance" in capsys.readouterr().err


def test_the_first_stage_that_fails_ends_the_run_with_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # main goes to the repository; this goes back afterwards
    ran = []

    def steps(steps, logs):
        ran.append(steps[0].name)
        return 130 if len(ran) == 2 else 0

    monkeypatch.setattr(train_minnow, "run_steps", steps)
    assert train_minnow.main(["--work", str(tmp_path / "w")]) == 130
    assert ran == ["corpus", "codec"]
