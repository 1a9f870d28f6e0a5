"""What finetune_tts.py plans: the model version's recipe under whatever is said, and each flag where it belongs."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace

import pytest

import finetune_tts
from fish_speech import arguments
from fish_speech.arguments import given_flags
from fish_speech.finetuning.request import check, fill_in
from fish_speech.finetuning.steps import plan as planned
from fish_speech.versions import VERSIONS

KEYS = {
    "trainer.max_steps": "max_steps",
    "model.optimizer.lr": "learning_rate",
    "data.pack_length": "max_length",
    "max_epochs": "max_epochs",
}


@pytest.fixture()
def overrides(tmp_path, monkeypatch):
    """Plan a training of tmp_path/data and return the config keys that it sets."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.lab").touch()

    def plan(*flags) -> dict[str, str]:
        fixed = ["--project", "p", "--data-dir", str(tmp_path / "data"), "--train"]
        fixed += ["--pretrained-ckpt-path", str(tmp_path / "base")]
        monkeypatch.setattr(sys, "argv", ["finetune_tts.py", *fixed, *map(str, flags)])
        options = finetune_tts.make_parser().parse_args()
        fill_in(options)
        given = given_flags(sys.argv[1:])
        step = planned(options, check(options, given), given)[-1]
        assert step.name == "train"
        return dict(argument.split("=", 1) for argument in step.arguments if "=" in argument)

    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return plan


@pytest.mark.parametrize("version", VERSIONS)
def test_steps_that_the_user_asks_for_are_not_cut_by_the_recipes_epochs(overrides, version):
    values = overrides("--model-version", version, "--max-steps", 7)
    assert (values["trainer.max_steps"], values["max_epochs"]) == ("7", "null")


def lora_of(values: dict[str, str]) -> str:
    return values.get("+lora@model.model.lora_config", "none")


@pytest.mark.parametrize("version", VERSIONS.values(), ids=list(VERSIONS))
def test_a_version_is_trained_by_its_own_recipe(overrides, version):
    values = overrides("--model-version", version.name)
    for key, field in KEYS.items():
        expected = getattr(version.recipe, field)
        assert values[key] == ("null" if expected is None else repr(expected))
    assert lora_of(values) == version.recipe.lora_config


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_user_says_comes_before_the_recipe(overrides, version):
    values = overrides(
        *(
            "--model-version",
            version,
            "--max-steps",
            7,
            "--max-epochs",
            2,
            "--learning-rate",
            "1e-6",
            "--max-length",
            99,
        ),
        *("--lora-config", "r_4_alpha_8"),
    )
    assert {field: values[key] for key, field in KEYS.items()} == {
        "max_steps": "7",
        "max_epochs": "2",
        "learning_rate": "1e-06",
        "max_length": "99",
    }
    assert lora_of(values) == "r_4_alpha_8"


@pytest.mark.parametrize("version", VERSIONS)
def test_epochs_without_steps_are_not_cut_short_by_the_recipes_steps(overrides, version):
    values = overrides("--model-version", version, "--max-epochs", 3)
    assert values["max_epochs"] == "3" and int(values["trainer.max_steps"]) > 1_000_000
    both = overrides("--model-version", version, "--max-epochs", 3, "--max-steps", 5)
    assert (both["max_epochs"], both["trainer.max_steps"]) == ("3", "5")


def test_help_shows_the_recipes_as_they_are(monkeypatch):
    said = re.sub(r"\s+", " ", finetune_tts.make_parser().format_help())
    flags = set(asdict(VERSIONS["1.5"].recipe)) - {"safe_learning_rate", "safe_steps"}  # the two are no flags' defaults
    for version in VERSIONS.values():
        for name in flags:
            value = getattr(version.recipe, name)
            unset = {"max_length": "4096, without CUDA 1024", "max_epochs": "any"}.get(name)
            shown = unset if value is None else f"{value:g}" if isinstance(value, float) else value
            assert f"{shown}" in said.rpartition(f"--{name.replace('_', '-')} ")[2][:250], name
    assert f"1e-5 to {VERSIONS['1.5'].recipe.safe_learning_rate:g} is safe for 1.5" in said
    other = replace(VERSIONS["minnow"], recipe=replace(VERSIONS["minnow"].recipe, max_steps=12345))
    monkeypatch.setitem(VERSIONS, "minnow", other)
    assert (
        arguments.version_default("recipe", "max_steps") == f"default: {VERSIONS['1.5'].recipe.max_steps}; minnow 12345"
    )
