"""Weights of whisper: found, checked before they are trusted, and downloaded only if that is asked for."""

import hashlib
import http.server
import io
import pickle
import threading
import zipfile

import pytest

from fish_speech.errors import UserError
from fish_speech.recognition import choose, load_recognizer, whisper_weights
from fish_speech.recognition.whisper_weights import check_weights

from .conftest import DIMS, random_whisper

whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed")


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    """An empty cache of whisper."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "whisper").mkdir()
    choose._load.cache_clear()  # a process keeps what it loaded, wherever the cache is now
    yield tmp_path / "whisper"
    choose._load.cache_clear()


def test_the_best_weights_in_the_cache_are_taken(cache):
    assert whisper_weights() is None
    (cache / "tiny.pt").touch()
    (cache / "base.en.pt").touch()
    (cache / "large-v3-turbo.pt").touch()
    assert whisper_weights(language="en") == cache / "base.en.pt"
    assert whisper_weights(language="de") == whisper_weights() == cache / "large-v3-turbo.pt"
    assert whisper_weights("tiny") == cache / "tiny.pt"
    assert whisper_weights("turbo") == cache / "large-v3-turbo.pt"  # as the package calls the file
    assert whisper_weights("base") is None and whisper_weights("base", "en") == cache / "base.en.pt"
    assert whisper_weights(str(cache / "gone.pt")) is None


def test_a_whole_file_is_taken_with_its_dimensions(whisper_file):
    assert check_weights(whisper_file) == DIMS


class Payload:
    """Says what unpickling it would run."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_file_with_code_is_refused_and_runs_nothing(tmp_path, container):
    import torch

    bad, target = tmp_path / "bad.pt", tmp_path / "ran"
    content = {"dims": DIMS, "model_state_dict": {}, "more": Payload(target)}
    if container == "torch":
        torch.save(content, bad)
    else:
        bad.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"bad\.pt"):
        load_recognizer("whisper", str(bad), "en")
    assert not target.exists()


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_a_torn_file_is_refused(tmp_path, whisper_file, kept):
    whole = whisper_file.read_bytes()
    torn = tmp_path / "torn.pt"
    torn.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=r"torn\.pt"):
        load_recognizer("whisper", str(torn), "en")


def changed(**dims):
    content = random_whisper(DIMS)
    content["dims"].update(dims)
    return content


def without(*names):
    content = random_whisper(DIMS)
    for name in names:
        del content["model_state_dict"][name]
    return content


def stretched():
    """Tensors of a huge model that take no room in the file."""
    import torch

    content = changed(n_audio_state=60000, n_text_state=60000)
    content["model_state_dict"] = {
        "encoder.conv1.weight": torch.zeros(1).expand(60000, 80, 3),
        "encoder.positional_embedding": torch.zeros(1).expand(1500, 60000),
        "decoder.positional_embedding": torch.zeros(1).expand(40, 60000),
        "decoder.token_embedding.weight": torch.zeros(1).expand(51865, 60000),
        "encoder.blocks.0.mlp.0.weight": torch.zeros(1).expand(240000, 60000),
        "decoder.blocks.0.mlp.0.weight": torch.zeros(1).expand(240000, 60000),
        "decoder.blocks.1.mlp.0.weight": torch.zeros(1).expand(240000, 60000),
    }
    return content


@pytest.mark.parametrize(
    "make",
    [
        dict,
        lambda: [1, 2],
        lambda: {"dims": DIMS, "model_state_dict": {"encoder.conv1.weight": "no tensor"}},
        lambda: changed(n_text_layer=10**6),
        lambda: changed(n_audio_state=10**12),
        lambda: changed(n_audio_state="8"),
        lambda: changed(n_text_head=3),
        lambda: changed(n_mels=81),
        lambda: changed(surprise=1),
        lambda: without("encoder.conv1.weight"),
        lambda: without("decoder.ln.bias"),
        stretched,
    ],
)
def test_what_is_no_whisper_model_is_refused_before_room_is_made_for_it(tmp_path, make):
    import torch

    torch.save(make(), tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt is no whisper model"):
        load_recognizer("whisper", str(tmp_path / "odd.pt"), "en")


def test_a_file_that_only_bears_a_published_name_is_refused(cache, whisper_file):
    (cache / "tiny.pt").write_bytes(whisper_file.read_bytes())
    with pytest.raises(UserError, match="SHA-256"):
        load_recognizer("whisper", "tiny", "en")
    assert (cache / "tiny.pt").stat().st_size == whisper_file.stat().st_size  # nothing was downloaded over it


@pytest.fixture()
def published(tmp_path, monkeypatch):
    """Serve a model of tiny's layers on loopback in the place of the published one; yields a switch for faults."""
    import torch

    content = io.BytesIO()
    dims = {**DIMS, "n_audio_state": 12, "n_text_state": 12, "n_audio_head": 6, "n_text_head": 6, "n_text_layer": 4}
    torch.save(random_whisper(dims), content)
    state = {"bytes": content.getvalue(), "fault": "", "asked": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["asked"] += 1
            if state["fault"] == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state["bytes"])))
            self.end_headers()
            self.wfile.write(state["bytes"][: 1000 if state["fault"] == "cut" else None])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(state["bytes"]).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/{digest}/tiny.pt"
    monkeypatch.setitem(whisper._MODELS, "tiny", url)
    yield state
    server.shutdown()
    server.server_close()


def test_a_named_model_is_downloaded_once_if_that_is_asked_for(cache, published, speech):
    with pytest.raises(UserError, match="nothing is downloaded unasked"):
        load_recognizer("whisper", "tiny", "en")
    assert published["asked"] == 0
    recognizer = load_recognizer("whisper", "tiny", "en", download=True)
    assert recognizer(speech[:8000])
    assert (cache / "tiny.pt").read_bytes() == published["bytes"]
    assert "tiny" in recognizer.name
    load_recognizer("whisper", "tiny", "de", download=True)
    assert published["asked"] == 1


@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_a_download_that_fails_says_what_to_put_where(cache, published, fault):
    published["fault"] = fault
    with pytest.raises(UserError) as failed:
        load_recognizer("whisper", "tiny", "en", download=True)
    assert "http://127.0.0.1" in failed.value.why
    assert str(cache / "tiny.pt") in failed.value.fix and "pocketsphinx" in failed.value.fix
    with pytest.raises(UserError):  # what was left of it is not trusted
        load_recognizer("whisper", "tiny", "en")
    published["fault"] = ""
    load_recognizer("whisper", "tiny", "en", download=True)
    assert zipfile.is_zipfile(cache / "tiny.pt")


def test_a_machine_without_network_is_told_so(cache, monkeypatch):
    monkeypatch.setitem(whisper._MODELS, "tiny", f"http://127.0.0.1:9/{'0' * 64}/tiny.pt")
    with pytest.raises(UserError, match="cannot download the whisper model tiny"):
        load_recognizer("whisper", "tiny", "en", download=True)
