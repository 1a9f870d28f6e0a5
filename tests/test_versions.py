"""Rows of the version table: where a codec's shape comes from, and what is said of files that no hub has."""

from pathlib import Path

import pytest

from fish_speech.errors import UserError
from fish_speech.hub import ensure_version
from fish_speech.merge_lora import codec_files, codec_yaml
from fish_speech.versions import VERSIONS, config_of_codec, settle_version, version_of_folder

S1_CONFIG = '{"model_type": "dual_ar", "attention_qk_norm": true}'
FISH_CONFIG = '{"model_type": "dual_ar", "share_codebook_embeddings": true}'


def test_a_codecs_shape_is_that_of_the_version_that_calls_it_so(tmp_path):
    for version in VERSIONS.values():
        assert config_of_codec(tmp_path / version.codec_file, version.name) == version.codec_config
    assert config_of_codec(tmp_path / VERSIONS["1.5"].codec_file, "s1-mini") == VERSIONS["1.5"].codec_config
    assert config_of_codec(tmp_path / "mine.pth", "minnow") == "minnow"
    (tmp_path / "codec.yaml").touch()
    assert config_of_codec(tmp_path / "codec.pth", "s1-mini") == str(tmp_path / "codec.yaml")


def test_of_two_versions_that_call_their_codec_alike_the_model_beside_it_decides(tmp_path):
    codec = tmp_path / "codec.pth"
    codec.touch()
    (tmp_path / "config.json").write_text(FISH_CONFIG, encoding="utf-8")
    assert config_of_codec(codec) == config_of_codec(codec, "1.5") == "minnow"
    (tmp_path / "config.json").write_text(S1_CONFIG, encoding="utf-8")
    assert config_of_codec(codec) == config_of_codec(codec, "1.5") == "modded_dac_vq"


def test_a_model_folder_says_which_version_it_is(tmp_path):
    assert version_of_folder(tmp_path) is None and settle_version(None, tmp_path).name == "1.5"
    (tmp_path / "config.json").write_text(S1_CONFIG, encoding="utf-8")
    assert settle_version(None, tmp_path).name == settle_version("s1-mini", tmp_path).name == "s1-mini"
    (tmp_path / "config.json").write_text(FISH_CONFIG, encoding="utf-8")
    assert settle_version(None, tmp_path).name == "1.5"
    (tmp_path / "codec.pth").touch()
    assert settle_version(None, tmp_path).name == "minnow"
    (tmp_path / "voice.json").write_text('{"model_version": "1.5"}', encoding="utf-8")
    assert settle_version(None, tmp_path).name == "1.5" and settle_version("minnow", tmp_path).name == "minnow"
    (tmp_path / "voice.json").write_text('{"model_version": "s1-mini"}', encoding="utf-8")  # config.json knows better
    assert settle_version(None, tmp_path).name == "minnow"


def test_a_folder_of_another_family_than_asked_for_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(S1_CONFIG, encoding="utf-8")
    with pytest.raises(UserError, match=r"no model of version 1\.5") as refused:
        settle_version("1.5", tmp_path)
    assert "--model-version s1-mini" in refused.value.fix
    (tmp_path / "config.json").write_text(FISH_CONFIG, encoding="utf-8")
    with pytest.raises(UserError, match="no model of version s1-mini"):
        settle_version("s1-mini", tmp_path)


@pytest.mark.parametrize("damage", ["", "[]", "{", "[" * 100_000, '"attention_qk_norm"'])
def test_a_damaged_config_says_nothing_about_the_version(tmp_path, damage):
    (tmp_path / "config.json").write_text(damage, encoding="utf-8")
    assert version_of_folder(tmp_path) is None


@pytest.mark.parametrize("offline", [False, True])
def test_missing_files_of_minnow_are_said_with_how_to_make_them_and_nothing_is_asked_of_a_hub(tmp_path, offline):
    with pytest.raises(UserError) as refused:
        ensure_version(VERSIONS["minnow"], tmp_path, offline=offline)
    said = str(refused.value)
    assert "codec.pth" in said and "docs/minnow.md" in said and "hf download" not in said
    assert not list(tmp_path.iterdir())


def test_a_whole_minnow_folder_is_taken_as_it_is(tmp_path):
    folder = tmp_path / VERSIONS["minnow"].folder
    folder.mkdir(parents=True)
    for name in VERSIONS["minnow"].files:
        (folder / name).write_bytes(b"x")
    assert ensure_version(VERSIONS["minnow"], tmp_path) == folder


def test_a_merged_folder_always_gets_the_shape_of_its_codec(tmp_path):
    codec = tmp_path / "codec.pth"
    shape = codec_yaml(codec, "1.5")
    assert shape.name == "firefly_gan_vq.yaml" and shape.is_file()
    assert codec_files(codec, shape) == {"codec.pth": codec, "codec.yaml": shape}
    codec.with_suffix(".yaml").touch()
    assert codec_yaml(codec, "minnow") == Path(tmp_path / "codec.yaml")
    assert codec_files(None, None) == {}
