"""Downloads, against a server on loopback that speaks the hub's API. Each runs in its own process: huggingface_hub
reads HF_ENDPOINT and its kin when it is imported."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fish_speech import hub
from fish_speech.errors import UserError
from fish_speech.versions import VERSIONS, ModelVersion

from .hub_server import HubServer

REPO = "someone/tiny-voice"
VERSION = ModelVersion(
    name="tiny",
    hub_id=REPO,
    folder=Path("checkpoints/tiny-voice"),
    codec_file="codec.pth",
    codec_config="firefly_gan_vq",
    family="fish",
)
MODEL_BYTES = 300_000
FILES = {
    "config.json": b'{"dim": 8}\n',
    "model.pth": random.Random(1).randbytes(MODEL_BYTES),
    "tokenizer.tiktoken": b"IQ== 0\n",
    "codec.pth": random.Random(2).randbytes(5_000),
}

# What a script would do, with no waiting between attempts. Arguments: version as JSON, root, offline.
PROGRAM = """
import json, logging, sys, time
from pathlib import Path
time.sleep = lambda seconds: None
from fish_speech import errors, hub, log
from fish_speech.versions import ModelVersion
fields = json.loads(sys.argv[1])
version = ModelVersion(**{**fields, "folder": Path(fields["folder"])})
log.setup()
errors.run(lambda: print(hub.ensure_version(version, Path(sys.argv[2]), offline=sys.argv[3] == "offline")))
"""


def command(root: Path, version: ModelVersion = VERSION, offline: bool = False, before: str = "") -> list[str]:
    fields = {
        "name": version.name,
        "folder": str(version.folder),
        "hub_id": version.hub_id,
        "revision": version.revision,
    }
    fields |= {"codec_file": version.codec_file, "codec_config": version.codec_config, "family": version.family}
    fields |= {"optional_files": version.optional_files, "gated": version.gated}
    return [sys.executable, "-c", before + PROGRAM, json.dumps(fields), str(root), "offline" if offline else "online"]


def environment(endpoint: str, root: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(root / "hf-home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **ours, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parent.parent), **more}


def fetch(endpoint: str, root: Path, version: ModelVersion = VERSION, offline: bool = False, before: str = "", **env):
    return subprocess.run(
        command(root, version, offline, before),
        env=environment(endpoint, root, **env),
        cwd=root,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def content(root: Path) -> dict[str, bytes]:
    """The finished files of the version's folder, without our records and partial downloads."""
    folder = root / VERSION.folder
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def record(root: Path) -> dict:
    return json.loads((root / VERSION.folder / hub.RECORD_FILE).read_text(encoding="utf-8"))


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(REPO) as running:
        running.commit(FILES)
        yield running


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_missing_files_are_fetched_at_the_commit_that_main_names(server, tmp_path):
    result = fetch(server.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / VERSION.folder)
    assert content(tmp_path) == FILES
    assert record(tmp_path)["commit"] == server.branches["main"]
    assert record(tmp_path)["files"]["model.pth"]["size"] == MODEL_BYTES
    assert hub.verify(tmp_path / VERSION.folder) == []
    assert [request for request in server.gets() if "/resolve/main/" in request.path] == []
    assert not list((tmp_path / VERSION.folder).rglob("*.part"))


def test_a_complete_folder_needs_neither_network_nor_huggingface_hub(closed_port, tmp_path):
    folder = tmp_path / VERSION.folder
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    blocked = "import sys; sys.modules['huggingface_hub'] = None\n"  # importing it would raise
    result = fetch(closed_port, tmp_path, before=blocked)
    assert result.returncode == 0, result.stderr
    assert not (folder / hub.RECORD_FILE).exists()


def test_only_what_is_missing_is_fetched(server, tmp_path):
    folder = tmp_path / VERSION.folder
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(b"weights that the user put here")
    assert fetch(server.url, tmp_path).returncode == 0
    assert (folder / "model.pth").read_bytes() == b"weights that the user put here"
    assert not [request for request in server.requests if "model.pth" in request.path]


def test_a_cut_connection_is_continued_and_no_byte_fetched_twice(server, tmp_path):
    server.faults.cut_after = [len(FILES["config.json"]), 4 * hub.CHUNK_BYTES, 7 * hub.CHUNK_BYTES]
    result = fetch(server.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert content(tmp_path) == FILES
    assert server.bytes_sent() == sum(len(data) for data in FILES.values())
    ranges = [request.headers["range"] for request in server.gets() if "range" in request.headers and request.sent]
    assert ranges == [f"bytes={4 * hub.CHUNK_BYTES}-", f"bytes={11 * hub.CHUNK_BYTES}-"]


def test_the_next_run_continues_a_download_that_failed(server, tmp_path):
    server.faults.cut_after = [len(FILES["config.json"]), 4 * hub.CHUNK_BYTES]
    server.faults.status_after_cut = 503
    first = fetch(server.url, tmp_path)
    assert first.returncode == 2 and "Traceback" not in first.stderr
    assert "model.pth, tokenizer.tiktoken, codec.pth" in first.stderr, "config.json had arrived"
    assert "that arrived are kept" in first.stderr
    assert "model.pth" not in content(tmp_path)

    server.faults.status_after_cut = 0
    second = fetch(server.url, tmp_path)
    assert second.returncode == 0, second.stderr
    assert content(tmp_path) == FILES
    assert server.bytes_sent() == sum(len(data) for data in FILES.values())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_a_killed_download_leaves_no_torn_file_and_continues(server, tmp_path):
    # Play a slow line: the process says that it has some bytes and then stands still until it is killed.
    stop = f"""
import io, sys, time
import fish_speech.hub as hub
write, doze = hub._PartialFile.write, time.sleep
def slow(self, data):
    done = write(self, data)
    if self.tell() >= 5 * {hub.CHUNK_BYTES}:
        print("standing still", flush=True)
        doze(60)
    return done
hub._PartialFile.write = slow
"""
    with subprocess.Popen(
        command(tmp_path, before=stop),
        env=environment(server.url, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == b"standing still"
        process.kill()
    assert "model.pth" not in content(tmp_path)
    server.requests.clear()
    assert fetch(server.url, tmp_path).returncode == 0
    assert content(tmp_path) == FILES
    continued = [request.headers.get("range") for request in server.gets() if request.sent]
    assert f"bytes={5 * hub.CHUNK_BYTES}-" in continued


def test_a_server_that_ignores_ranges_still_gives_a_right_file(server, tmp_path):
    server.faults.cut_after = [len(FILES["config.json"]), 4 * hub.CHUNK_BYTES]
    server.faults.ignore_range = True
    result = fetch(server.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert content(tmp_path) == FILES


@pytest.mark.parametrize("name", ["model.pth", "config.json"])  # named by SHA-256 and by git's hash
def test_a_file_with_a_wrong_hash_is_deleted(server, tmp_path, name):
    server.faults.wrong_bytes = {name}
    result = fetch(server.url, tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"{name} of {REPO} arrived damaged and was deleted" in result.stderr
    assert name not in content(tmp_path)
    assert not list((tmp_path / VERSION.folder).rglob("*.part"))


def test_a_torn_partial_file_is_fetched_again_from_the_start(server, tmp_path):
    server.faults.cut_after = [len(FILES["config.json"]), 4 * hub.CHUNK_BYTES]
    server.faults.status_after_cut = 503
    assert fetch(server.url, tmp_path).returncode == 2
    (partial,) = (tmp_path / VERSION.folder).rglob("*.part")
    partial.write_bytes(bytes(partial.stat().st_size))  # as a power cut can leave it
    server.faults.status_after_cut = 0
    result = fetch(server.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert content(tmp_path) == FILES


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1, 1, 7)", "not enough room for config.json"),
        ("hub._PartialFile.write = full", "the disk is full"),
    ],
)
def test_a_full_disk_is_explained(server, tmp_path, fault, expected):
    before = f"""
import errno, shutil
import fish_speech.hub as hub
def full(self, data):
    raise OSError(errno.ENOSPC, "No space left on device")
{fault}
"""
    result = fetch(server.url, tmp_path, before=before)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert expected in result.stderr
    assert content(tmp_path) == {}


def test_without_network_the_message_names_files_command_and_folder(closed_port, tmp_path):
    result = fetch(closed_port, Path(tmp_path))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    folder = tmp_path / VERSION.folder
    assert "config.json, model.pth, tokenizer.tiktoken, codec.pth" in result.stderr
    assert f"hf download {REPO} --local-dir {folder}" in result.stderr
    assert f"huggingface-cli download {REPO} --local-dir {folder}" in result.stderr
    assert closed_port in result.stderr


def test_offline_asks_nobody(server, tmp_path):
    no_sockets = """
import socket
def forbidden(*args, **kwargs):
    raise AssertionError("a socket was opened")
socket.socket = forbidden
"""
    result = fetch(server.url, tmp_path, offline=True, before=no_sockets)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "--offline" in result.stderr and "model.pth" in result.stderr
    assert f"download {REPO} --local-dir" in result.stderr
    assert server.requests == []
    assert not (tmp_path / VERSION.folder).exists()


def test_hf_hub_offline_asks_nobody(server, tmp_path):
    result = fetch(server.url, tmp_path, HF_HUB_OFFLINE="1")
    assert result.returncode == 2 and "HF_HUB_OFFLINE" in result.stderr
    assert server.requests == []


def test_later_downloads_use_the_commit_of_the_first(server, tmp_path):
    assert fetch(server.url, tmp_path).returncode == 0
    (tmp_path / VERSION.folder / "codec.pth").unlink()
    server.commit({name: data + b"changed" for name, data in FILES.items()})  # main moves on
    assert fetch(server.url, tmp_path).returncode == 0
    assert content(tmp_path) == FILES
    assert record(tmp_path)["commit"] != server.branches["main"]


def test_a_first_download_that_failed_continues_at_its_commit_when_main_moves_on(server, tmp_path):
    first = server.branches["main"]
    server.faults.cut_after, server.faults.status_after_cut = [4], 503  # within config.json, the first file
    assert fetch(server.url, tmp_path).returncode == 2
    assert content(tmp_path) == {}
    server.faults.status_after_cut = 0
    server.commit({name: data + b"changed" for name, data in FILES.items()})
    assert fetch(server.url, tmp_path).returncode == 0
    assert record(tmp_path)["commit"] == first
    assert content(tmp_path) == FILES


def test_files_of_another_commit_are_not_mixed_in(server, tmp_path):
    assert fetch(server.url, tmp_path).returncode == 0
    (tmp_path / VERSION.folder / "codec.pth").unlink()
    pinned = ModelVersion(**{**vars(VERSION), "revision": "0" * 40})
    result = fetch(server.url, tmp_path, version=pinned)
    assert result.returncode == 2 and "must not mix" in result.stderr


def test_the_token_goes_to_the_hub_and_not_to_its_storage(server, tmp_path):
    server.token = "hf_secret"
    assert fetch(server.url, tmp_path, HF_TOKEN="hf_secret").returncode == 0
    stored = [request for request in server.requests if request.path.startswith("/storage/")]
    assert stored and all("authorization" not in request.headers for request in stored)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "GatedRepo", "refuses access"),
        (403, "", "refuses access"),
        (401, "", "HF_TOKEN is not set"),
        (404, "RepoNotFound", "does not show"),
        (404, "RevisionNotFound", "has no revision main"),
        (404, "EntryNotFound", "has no file config.json"),
        (500, "", "files of model version tiny are missing"),
        (503, "", "files of model version tiny are missing"),
    ],
)
def test_refusals_are_explained(server, tmp_path, status, code, expected):
    server.faults.status, server.faults.error_code = {"config.json": status}, code
    result = fetch(server.url, tmp_path)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr and "Traceback" not in result.stderr


GATED = replace(VERSION, name="s1-mini", gated=True)


def refusal(result: subprocess.CompletedProcess[str], server: HubServer) -> str:
    """The message of a run that a gated repository refused, which must always name the way in."""
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert f"{server.url} refuses access to {REPO}" in result.stderr
    assert f"accept the terms (licence CC-BY-NC-SA 4.0) at {server.url}/{REPO}" in result.stderr
    assert "hf auth login, or set HF_TOKEN=hf_..." in result.stderr and "read access to public gated" in result.stderr
    assert "hf_right" not in result.stderr
    return result.stderr


def test_a_gated_repository_without_a_token_says_what_to_accept_and_how_to_pass_one(server, tmp_path):
    server.token = "hf_right"
    said = refusal(fetch(server.url, tmp_path, GATED), server)
    assert "no token was sent that says whose account asks (HF_TOKEN is not set)" in said
    assert content(tmp_path) == {}


def test_a_token_of_an_account_that_did_not_accept_the_terms_is_told_from_none(server, tmp_path):
    server.token, server.accepted = "hf_right", False
    said = refusal(fetch(server.url, tmp_path, GATED, HF_TOKEN="hf_right"), server)
    assert "the account of the token has not, or the token may not read gated repositories (HF_TOKEN is set)" in said
    assert "the hub says: you are not in the authorized list" in said
    stored = tmp_path / "hf-home" / "token"  # what hf auth login writes
    stored.parent.mkdir(exist_ok=True)
    stored.write_text("hf_right", encoding="utf-8")
    said = refusal(fetch(server.url, tmp_path, GATED), server)
    assert "(HF_TOKEN is not set, the token is that of hf auth login)" in said
    server.accepted = True
    assert fetch(server.url, tmp_path, GATED).returncode == 0
    assert content(tmp_path) == FILES


def test_a_token_that_the_hub_does_not_know_is_called_so(server, tmp_path):
    server.token = "hf_right"
    said = refusal(fetch(server.url, tmp_path, GATED, HF_TOKEN="hf_wrong"), server)
    assert "does not know the token that was sent (HF_TOKEN is set)" in said and "hf_wrong" not in said


def test_offline_a_gated_version_names_its_terms_before_the_command(tmp_path):
    with pytest.raises(UserError) as caught:
        hub.ensure_version(VERSIONS["s1-mini"], tmp_path, offline=True)
    lines = str(caught.value).splitlines()
    terms = next(i for i, line in enumerate(lines) if "accept the terms at" in line)
    assert "https://huggingface.co/fishaudio/openaudio-s1-mini, then: hf auth login" in lines[terms]
    assert "hf download fishaudio/openaudio-s1-mini --local-dir" in lines[terms + 1]
    assert "special_tokens.json" not in str(caught.value)


OPTIONAL = replace(VERSION, optional_files=("special_tokens.json",))


def test_an_optional_file_comes_with_the_others_and_is_checked_like_them(server, tmp_path):
    files = {**FILES, "special_tokens.json": b'{"<|pad|>": 1}\n'}
    server.commit(files)
    assert fetch(server.url, tmp_path, OPTIONAL).returncode == 0
    assert content(tmp_path) == files and "special_tokens.json" in record(tmp_path)["files"]
    (tmp_path / VERSION.folder / "special_tokens.json").write_bytes(b"")
    result = fetch(server.url, tmp_path, OPTIONAL)
    assert result.returncode == 2 and "special_tokens.json has 0 bytes" in result.stderr


def test_an_optional_file_that_the_repository_lacks_is_not_missed(server, tmp_path):
    result = fetch(server.url, tmp_path, OPTIONAL)
    assert result.returncode == 0, result.stderr
    assert f"{REPO} has no special_tokens.json, which is not needed" in result.stderr
    assert content(tmp_path) == FILES and record(tmp_path)["commit"] == server.branches["main"]


def test_an_optional_file_alone_is_no_reason_to_ask_the_network(server, tmp_path):
    assert fetch(server.url, tmp_path, OPTIONAL).returncode == 0
    server.requests.clear()
    for offline in (False, True):
        assert fetch(server.url, tmp_path, OPTIONAL, offline=offline).returncode == 0
    assert server.requests == []


def test_an_optional_file_is_there_before_a_folder_counts_as_complete(server, tmp_path):
    server.commit({**FILES, "special_tokens.json": b"{}\n"})
    server.faults.status = {"codec.pth": 500}
    assert fetch(server.url, tmp_path, OPTIONAL).returncode == 2
    assert (tmp_path / VERSION.folder / "special_tokens.json").is_file()


def test_a_file_without_a_hash_is_not_used(server, tmp_path):
    server.faults.no_hash = True
    result = fetch(server.url, tmp_path)
    assert result.returncode == 2 and "gave no commit, hash or size" in result.stderr
    assert content(tmp_path) == {}


def test_an_endpoint_that_is_no_url_is_explained(tmp_path):
    result = fetch("hf-mirror.com", tmp_path)
    assert result.returncode == 2 and "HF_ENDPOINT is 'hf-mirror.com'" in result.stderr


def test_two_processes_at_once_fetch_each_file_once(server, tmp_path):
    running = [
        subprocess.Popen(
            command(tmp_path),
            env=environment(server.url, tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    problems = [process.communicate(timeout=60)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], problems
    assert content(tmp_path) == FILES
    assert server.bytes_sent() == sum(len(data) for data in FILES.values())


def test_verify_finds_a_changed_a_shortened_and_a_lost_file(server, tmp_path):
    assert fetch(server.url, tmp_path).returncode == 0
    folder = tmp_path / VERSION.folder
    changed = bytearray(FILES["model.pth"])
    changed[1234] ^= 1
    (folder / "model.pth").write_bytes(bytes(changed))
    (folder / "codec.pth").write_bytes(b"short")
    (folder / "config.json").unlink()
    problems = "\n".join(hub.verify(folder))
    assert len(problems.splitlines()) == 3
    for expected in (
        r"model\.pth has another SHA-256",
        r"codec\.pth has 5 bytes, not 5000",
        r"config\.json is missing",
    ):
        assert re.search(expected, problems)
    with pytest.raises(UserError, match=r"codec\.pth has 5 bytes"):  # the cheap check finds this one too
        hub.ensure_version(VERSION, tmp_path, offline=True)


def test_verify_says_when_no_hash_is_known(tmp_path):
    assert "no hash is known" in hub.verify(tmp_path)[0]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/passwd", "C:\\evil", "..\\evil", "\\\\host\\x", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="unsafe file name"):
        hub.ensure_version(VERSION, tmp_path, offline=True, files=[name])


def test_a_damaged_record_is_explained(tmp_path):
    path = tmp_path / VERSION.folder / hub.RECORD_FILE
    path.parent.mkdir(parents=True)
    for text in (
        "{",
        "[]",
        '{"repo": "a", "commit": "b", "files": {}}',
        '{"files": {"x": {"size": "y", "sha256": 1}}}',
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="cannot be read"):
            hub.ensure_version(VERSION, tmp_path, offline=True)


def test_the_default_version_says_where_its_files_come_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        hub.ensure_version(VERSIONS["1.5"], offline=True)
    expected = "huggingface-cli download fishaudio/fish-speech-1.5 --local-dir checkpoints/fish-speech-1.5"
    assert expected in str(caught.value).replace("\\", "/")
    for name in VERSIONS["1.5"].files:
        assert name in str(caught.value)


def test_importing_the_module_is_quick():
    start = time.perf_counter()
    code = "import sys, fish_speech.hub; sys.exit('huggingface_hub' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
    assert time.perf_counter() - start < 5
