"""Export: the graph that every client knows, saying what torch says, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from fish_speech.errors import UserError
from piper_train.export_onnx import export, main
from piper_train.onnx_graph import QUIET, SpokenVoice, largest_difference
from piper_train.speech.session import open_session, run_session

from .exported import KINDS, generator_of, voice_mapping, write_checkpoint

INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT


def described(values) -> list[tuple[str, int, list]]:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


@pytest.mark.parametrize("kind", ["single", "multi", "plain", "high", "x-low"])
def test_the_graph_has_the_inputs_axes_and_nodes_of_published_voices(exported, kind):
    model = onnx.load(exported(kind))
    inputs = [
        ("input", INT64, ["batch_size", "phonemes"]),
        ("input_lengths", INT64, ["batch_size"]),
        ("scales", FLOAT, [3]),
    ] + ([("sid", INT64, [1])] if kind == "multi" else [])
    assert described(model.graph.input) == inputs
    [(name, element, axes)] = described(model.graph.output)
    assert (name, element, axes[:3]) == ("output", FLOAT, ["batch", 1, "time"]) and isinstance(axes[3], str)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Ceil") == 1 and kinds.count("RandomNormalLike") == (1 if kind == "plain" else 2)
    assert not model.metadata_props and (model.opset_import[0].version, model.ir_version) == (15, 8)


@pytest.mark.parametrize("kind", ["single", "multi", "plain", "high", "x-low"])
def test_without_noise_onnxruntime_says_what_torch_says_for_any_length(exported, kind):
    generator, session = generator_of(kind), open_session(exported(kind))
    many = KINDS[kind].get("num_speakers", 1)
    rng = torch.Generator().manual_seed(1)
    for count in (3, 4, 29, 50, 160):
        ids = torch.randint(256, (1, count), generator=rng)
        speaker = count % many if many > 1 else None
        sid = None if speaker is None else torch.tensor([speaker])
        with torch.no_grad():
            wave = generator.infer(ids, torch.tensor([count]), sid, *QUIET).wave.reshape(-1).numpy()
        said = run_session(session, ids[0].tolist(), QUIET, speaker)
        assert wave.shape == said.shape and np.abs(wave).max() > 0.01
        np.testing.assert_allclose(said, wave, rtol=0, atol=1e-5)


def test_the_length_scale_stretches_and_noise_changes_the_sound(exported):
    session, ids = open_session(exported("single"), seed=1), list(range(40))
    short, long = (len(run_session(session, ids, (0, scale, 0), None)) for scale in (1.0, 2.0))
    assert 1.5 * short < long <= 2 * short
    one, other = (run_session(session, ids, (0.667, 1, 0), None) for _ in range(2))
    assert one.shape == other.shape and np.abs(one - other).max() > 1e-3  # the same durations, other latents
    assert len({len(run_session(session, ids, (0, 1, 0.8), None)) for _ in range(5)}) > 1  # other durations


def test_the_speaker_changes_the_sound(exported):
    session, ids = open_session(exported("multi")), list(range(30))
    sounds = [run_session(session, ids, QUIET, speaker) for speaker in range(3)]
    assert all(a.shape != b.shape or np.abs(a - b).max() > 1e-3 for a, b in zip(sounds, [*sounds[1:], sounds[0]]))


def test_the_config_goes_along_with_the_true_hop_length(exported):
    path = exported("x-low")
    config = json.loads((path.parent / "voice.onnx.json").read_text(encoding="utf-8"))
    assert config == {**voice_mapping(generator_of("x-low").config), "hop_length": 256}


def test_the_same_checkpoint_gives_the_same_file(exported, tmp_path):
    first = exported("plain")
    again = export(first.with_suffix(".ckpt"), tmp_path / "deep" / "again.onnx")
    assert again.read_bytes() == first.read_bytes()


def test_a_difference_from_torch_is_found(exported):
    generator = generator_of("plain")
    with torch.no_grad():
        generator.dec.conv_pre.bias += 0.01
    with pytest.raises(RuntimeError, match=r"differ from torch's by|samples, torch"):
        largest_difference(SpokenVoice(generator), exported("plain"))


def test_a_checkpoint_without_a_config_takes_it_from_the_command_line(exported, tmp_path, capsys):
    generator = generator_of("plain")
    bare = write_checkpoint(tmp_path / "published.ckpt", generator)
    with pytest.raises(UserError, match=r"does not carry the voice's config"):
        export(bare, tmp_path / "voice.onnx")
    config = tmp_path / "config.json"
    published = {"audio": {"sample_rate": 22050, "quality": "medium"}, "dataset": "x", "language": {"code": "en_US"}}
    mapping = voice_mapping(generator.config, phoneme_map={}, **published)
    config.write_text(json.dumps(mapping), encoding="utf-8")
    assert main(["--checkpoint", str(bare), "--output-file", str(tmp_path / "v.onnx"), "--config", str(config)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "v.onnx")
    assert json.loads((tmp_path / "v.onnx.json").read_text(encoding="utf-8")) == {**mapping, "hop_length": 256}
    assert (tmp_path / "v.onnx").read_bytes() == exported("plain").read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_symbols": 300}, "num_symbols is 300 in the config, 256 in the checkpoint"),
        ({"num_speakers": 2}, "num_speakers is 2 in the config, 1 in the checkpoint"),
        ({"audio": {"sample_rate": 16000}}, "audio.sample_rate is 16000 in the config, 22050 in the checkpoint"),
        ({"phoneme_id_map": {"a": [256]}}, "id 256"),
        ({"espeak": {}}, "espeak.voice"),
    ],
)
def test_a_config_of_another_voice_is_refused(tmp_path, changes, said):
    generator = generator_of("plain")
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", generator)
    with pytest.raises(UserError) as raised:
        export(checkpoint, tmp_path / "a.onnx", voice_mapping(generator.config, **changes))
    assert said in raised.value.why
    assert not list(tmp_path.glob("*.onnx*"))


def test_what_is_no_piper_checkpoint_is_refused(tmp_path, exported):
    state = {"model_g.enc_p.emb.weight": torch.zeros(256, 32), "model_g.other": torch.zeros(3)}
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    torch.save({"state_dict": {"layers.0.weight": torch.zeros(3)}}, tmp_path / "fish.ckpt")
    (tmp_path / "torn.ckpt").write_bytes(exported("plain").with_suffix(".ckpt").read_bytes()[:-100_000])
    for name in ("other.ckpt", "fish.ckpt", "torn.ckpt", "missing.ckpt"):
        with pytest.raises(UserError, match=name):
            export(tmp_path / name, tmp_path / "a.onnx", voice_mapping(generator_of("plain").config))
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    generator = generator_of("plain")
    state = {f"model_g.{name}": tensor for name, tensor in generator.state_dict().items() if "enc_q.enc.in" not in name}
    torch.save({"state_dict": state, "hyper_parameters": generator.config.to_mapping()}, tmp_path / "half.ckpt")
    with pytest.raises(UserError, match=r"half.ckpt"):
        export(tmp_path / "half.ckpt", tmp_path / "a.onnx", voice_mapping(generator.config))


@pytest.mark.parametrize("frames", [1e4, 1e15])  # of every symbol
def test_a_voice_that_speaks_without_end_is_not_exported(tmp_path, frames):
    generator = generator_of("plain")
    with torch.no_grad():
        generator.dp.proj.weight.zero_()
        generator.dp.proj.bias.fill_(float(np.log(frames)))
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", generator, voice_config=voice_mapping(generator.config))
    with pytest.raises(UserError, match="endless sound"):
        export(checkpoint, tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx*"))


@pytest.mark.parametrize("name", ["voice", "voice.pt", "folder.onnx"])
def test_an_output_that_is_no_onnx_file_is_refused(tmp_path, name):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=r"cannot export to"):
        export(tmp_path / "a.ckpt", tmp_path / name)
