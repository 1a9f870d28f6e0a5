"""Exported voices and small discriminators that tests of this folder share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .exported import write_voice


@pytest.fixture(scope="module")
def few_judges() -> Iterator[None]:
    """Let training make small discriminators in place of those of 47 million weights (see few_judges.py)."""
    from piper_train.training import module

    from .few_judges import FewJudges

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MultiPeriodDiscriminator", FewJudges)
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[[str], Path]:
    """The .onnx of a small voice by its kind (exported.KINDS), made when it is first asked for; read only."""
    folder, made = tmp_path_factory.mktemp("voices"), {}

    def voice(kind: str = "single") -> Path:
        if kind not in made:
            made[kind] = write_voice(folder / kind, kind)
        return made[kind]

    return voice


@pytest.fixture()
def own_voice(exported, tmp_path) -> Callable[[str], Path]:
    """A copy of such a voice in the test's folder, to be changed."""

    def voice(kind: str = "single") -> Path:
        source = exported(kind)
        for path in source.parent.iterdir():
            shutil.copyfile(path, tmp_path / path.name)
        return tmp_path / source.name

    return voice
