"""Rows of the version table: where a codec's shape comes from, and what is said of files that no hub has."""

from pathlib import Path

import pytest

from fish_speech.errors import UserError
from fish_speech.hub import ensure_version
from fish_speech.merge_lora import codec_files, codec_yaml
from fish_speech.versions import VERSIONS, config_of_codec


def test_the_yaml_beside_codec_weights_comes_before_the_versions_config(tmp_path):
    codec = tmp_path / "codec.pth"
    assert VERSIONS["minnow"].config_of(codec) == "minnow"
    codec.with_suffix(".yaml").touch()
    assert VERSIONS["minnow"].config_of(codec) == str(tmp_path / "codec.yaml")


def test_a_codecs_shape_is_that_of_the_version_that_names_it_so_whatever_version_is_asked_for(tmp_path):
    for version in VERSIONS.values():
        for asked in VERSIONS:
            assert config_of_codec(tmp_path / version.codec_file, asked) == version.codec_config
    assert config_of_codec(tmp_path / "mine.pth", "minnow") == "minnow"
    (tmp_path / "codec.yaml").touch()
    assert config_of_codec(tmp_path / "codec.pth") == str(tmp_path / "codec.yaml")


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
