"""Fixtures of the server's tests, which need the extra `serve` and httpx: without them there is nothing to collect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fish_speech.extras import missing

if TYPE_CHECKING:
    from .harness import GatedSpeaker, Served

collect_ignore_glob = ["test_*.py"] if missing("fastapi", "uvicorn", "httpx") else []


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Served, GatedSpeaker]]:
    """A server whose frames the test lets through; two requests may wait."""
    from fish_speech.serving.limits import Limits
    from fish_speech.serving.voices import VoiceShelf

    from .harness import GatedSpeaker, serving

    speaker = GatedSpeaker()
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(waiting=2, stall_s=1.0, grace_s=5)) as served:
        yield served, speaker
        speaker.let(100_000)


@pytest.fixture(scope="session")
def minnow() -> Any:
    """The small real voice, loaded once."""
    from fish_speech.speaking.loading import VoiceSettings, load_voice

    folder = Path(__file__).parents[2] / "checkpoints" / "minnow"
    return load_voice(VoiceSettings("minnow", folder, device="cpu", offline=True)).speaker


@pytest.fixture(scope="session")
def voices_folder(tmp_path_factory: pytest.TempPathFactory, minnow: Any) -> Path:
    """Two voices that minnow can imitate, one that it cannot, and a file beside the folder."""
    from fish_speech.synthesis.voices import encode_reference, write_reference

    folder = tmp_path_factory.mktemp("shelf") / "voices"
    samples = Path(__file__).parents[2] / "samples" / "allison"
    for name, clip in (("anna", "auth-incorrect"), ("Käthe 2", "conf-kicked")):
        codes = encode_reference(minnow.codec, samples / f"{clip}.flac")
        write_reference(folder / f"{name}.npy", codes, (samples / f"{clip}.txt").read_text(encoding="utf-8"))
    write_reference(folder.parent / "outside.npy", codes, "Outside of the folder.")
    write_reference(folder / "spoilt.npy", codes[:1] * 0 - 1, "Codes below zero.")
    return folder


@pytest.fixture(scope="session")
def real(minnow: Any, voices_folder: Path) -> Iterator[Served]:
    """A server with minnow."""
    from fish_speech.serving.voices import VoiceShelf

    from .harness import serving

    shelf = VoiceShelf(voices_folder)
    shelf.speaker = minnow
    with serving(lambda: minnow, shelf) as served:
        yield served
