"""Fetch a model version from the Hugging Face hub, or say how to get it by hand.

huggingface_hub asks and transfers; this file adds what a 1.3 GB download needs on a bad line. Bytes gather in
`FOLDER/.download/HASH.part`, where the next run continues, and get their final name only when their hash is right.
The commit that a folder's first download saw is written to `FOLDER/.revision.json`, with each file's size and
SHA-256: later downloads into that folder use that commit, so that files of two commits never mix.

A folder that is complete costs no network and no import of huggingface_hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from .errors import UserError
from .files import write_json
from .hub_access import refused, token_in_words
from .versions import ModelVersion

log = logging.getLogger(__name__)
T = TypeVar("T")

RECORD_FILE = ".revision.json"
WORK_FOLDER = ".download"
ATTEMPTS = 3  # in a row without a new byte, before giving up
PAUSE_S = 1.0  # between attempts
CHUNK_BYTES = 16 * 1024  # what a cut connection loses; huggingface_hub's own 10 MB is a whole small file
COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of git, or SHA-256


def ensure_version(
    version: ModelVersion, root: Path = Path(), offline: bool = False, files: Sequence[str] | None = None
) -> Path:
    """Return the folder under `root` that holds `files` (default: all that a run needs), fetching what is missing.

    Raises UserError where that cannot be done. `offline` never asks the network. A file that is there already is
    trusted if its size is the recorded one; `verify` looks closer. With all that a run needs come the version's
    optional files, where the repository has them; they alone are no reason to ask.
    """
    folder = Path(root) / version.folder
    names, optional = (version.files, version.optional_files) if files is None else (tuple(files), ())
    missing = _missing(folder, names)
    absent = _missing(folder, optional)
    if not missing:
        return folder
    if not version.hub_id:
        raise UserError(
            f"{len(missing)} files of model version {version.name} are missing in {folder}: {', '.join(missing)}",
            "this version comes with the repository and is on no hub",
            version.how_to_get,
        )
    if offline:
        raise _unavailable(version, folder, missing, "--offline forbids asking the network")
    try:
        with _only_one_process(folder):
            missing = _missing(folder, names)  # another process may have fetched them while this one waited
            for name in (*absent, *missing) if missing else ():  # optional ones first: nobody asks for them later
                _fetch(version, folder, name, missing)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot write to {folder}", str(error), "make it a folder that you may write to") from error
    return folder


def verify(folder: Path) -> list[str]:
    """Hash the files that were downloaded into `folder` and return what is wrong, a line each; reads every byte."""
    record = read_record(folder)
    if not record:
        return [f"{folder} has no {RECORD_FILE}: its files were not downloaded by this toolkit, so no hash is known"]
    problems = []
    for name, expected in record["files"].items():
        path = _local(folder, name)
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != expected["size"]:
            problems.append(f"{path} has {path.stat().st_size} bytes, not {expected['size']}")
        elif _hashes(path)[0] != expected["sha256"]:
            problems.append(f"{path} has another SHA-256 than the file that was downloaded")
    return problems


def read_record(folder: Path) -> dict[str, Any]:
    """Return what `.revision.json` says: repo, commit and files; empty if there is none."""
    path = Path(folder) / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sizes = [(str(entry["sha256"]), int(entry["size"])) for entry in record["files"].values()]
        if not (isinstance(record["repo"], str) and COMMIT.fullmatch(record["commit"])) or any(s < 0 for _, s in sizes):
            raise ValueError("repo, commit or a size is not what it should be")
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read", f"it is damaged: {error!r}", f"delete {path}") from error
    return record


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names that are not in `folder`; raise UserError listing those that are there but damaged."""
    paths = {name: _local(folder, name) for name in names}
    missing = [name for name, path in paths.items() if not path.is_file()]
    recorded = read_record(folder).get("files", {})
    damaged = []
    for path in (path for name, path in paths.items() if name not in missing):
        size, expected = path.stat().st_size, recorded.get(path.relative_to(folder).as_posix(), {}).get("size")
        if size == 0 or expected not in (None, size):
            damaged.append(f"{path} has {size} bytes" + (f", not {expected}" if expected else ""))
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(names)} model files in {folder} are damaged",
            "; ".join(damaged),
            "delete what is listed and run the same command again",
        )
    return missing


def _local(folder: Path, name: str) -> Path:
    """Return where file `name` of a repository lies; names that could lead out of `folder` are refused."""
    windows = PureWindowsPath(name)
    if not name or ".." in windows.parts or windows.drive or windows.root or PurePosixPath(name).is_absolute():
        raise UserError(f"unsafe file name {name!r}", f"it could lead out of {folder}", "report it to the repository")
    return Path(folder, *PurePosixPath(name).parts)


def _fetch(version: ModelVersion, folder: Path, name: str, missing: Sequence[str]) -> None:
    """Download one file at the folder's commit, check its hash, give it its name and record it.

    A file that is not among the `missing` is optional: nothing is done where the repository lacks it.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    record = read_record(folder) or {"repo": version.hub_id, "commit": "", "files": {}}
    _check_same_source(version, folder, record)
    revision = record["commit"] or version.revision
    with _explained(version, folder, name, missing, revision):
        try:
            commit, etag, size = _ask(version, folder, name, revision)
        except EntryNotFoundError:
            if name in missing:
                raise
            log.info("%s has no %s, which is not needed", version.hub_id, name)
            return
        if not record["commit"]:
            record["commit"] = commit
            write_json(folder / RECORD_FILE, record)
        log.info("downloading %s (%s) of %s at commit %s", name, _size(size), version.hub_id, record["commit"])
        url = hf_hub_url(version.hub_id, name, revision=record["commit"])
        partial = folder / WORK_FOLDER / f"{etag}.part"
        resumed = partial.exists()
        _transfer(url, partial, name, size)
        sha256 = _checked_sha256(partial, etag)
        if sha256 is None and resumed:  # a partial file can be torn by a power cut: once more, from the start
            log.warning("%s does not have the hash that the hub gives; downloading it from the start", name)
            _transfer(url, partial, name, size)
            sha256 = _checked_sha256(partial, etag)
    if sha256 is None:
        raise UserError(
            f"{name} of {version.hub_id} arrived damaged and was deleted",
            f"its hash is not {etag}, which the hub gives for it",
            f"run the same command again; if it repeats, {_by_hand(version, folder, record['commit'])}",
        )
    destination = _local(folder, name)
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(destination)
    record["files"][name] = {"size": size, "sha256": sha256}
    write_json(folder / RECORD_FILE, record)
    log.info("%s: %s, hash checked", destination, _size(size))


def _ask(version: ModelVersion, folder: Path, name: str, revision: str) -> tuple[str, str, int]:
    """Ask the hub for a file's commit, its hash and its size in bytes."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if not constants.ENDPOINT.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT is {constants.ENDPOINT!r}", "it must start with https://", "correct HF_ENDPOINT")
    url = hf_hub_url(version.hub_id, name, revision=revision)
    found = _retry(lambda: get_hf_file_metadata(url))
    commit, etag = found.commit_hash or "", found.etag or ""
    if not COMMIT.fullmatch(commit) or not HASH.fullmatch(etag) or found.size is None:
        raise UserError(
            f"{constants.ENDPOINT} gave no commit, hash or size of {name}",
            "a download that cannot be checked is not used; this is not the hub, or a proxy changes its answers",
            _by_hand(version, folder, revision),
        )
    return commit, etag, found.size


def _check_same_source(version: ModelVersion, folder: Path, record: dict[str, Any]) -> None:
    """Refuse to mix two repositories or two commits in one folder."""
    other_commit = COMMIT.fullmatch(version.revision) and record["commit"] not in ("", version.revision)
    if record["repo"] != version.hub_id or other_commit:
        raise UserError(
            f"{folder} holds files of {record['repo']} at {record['commit']}",
            f"version {version.name} is {version.hub_id} at {version.revision}, and the two must not mix",
            f"move {folder} away and run the same command again",
        )


def _transfer(url: str, partial: Path, name: str, size: int) -> None:
    """Add to `partial` what it lacks of `size` bytes; what arrived stays there when the connection breaks."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    def have() -> int:
        return partial.stat().st_size if partial.exists() else 0

    def attempt() -> None:
        if have() > size:  # the server ignored our Range header: what is there is no beginning of the file
            partial.unlink()
        free = shutil.disk_usage(partial.parent).free
        if free < size - have():
            raise UserError(
                f"not enough room for {name} in {partial.parent.parent}",
                f"{_size(size - have())} are still to come and {_size(free)} are free",
                "free some space and run the same command again",
            )
        # Compressed answers have another length and cannot be continued.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        with _PartialFile(partial, name, size) as file:
            http_get(url, file, resume_size=have(), headers=headers, expected_size=size, displayed_filename=name)
            os.fsync(file.fileno())

    if have():
        log.info("%s: continuing after %s", name, _size(have()))
    usual, constants.DOWNLOAD_CHUNK_SIZE = constants.DOWNLOAD_CHUNK_SIZE, CHUNK_BYTES
    try:
        _retry(attempt, have)
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = usual


class _PartialFile(io.FileIO):
    """A file to append to, unbuffered, that says once a minute how far it is where no progress bar can be shown."""

    def __init__(self, path: Path, name: str, size: int):
        super().__init__(path, "ab")
        self.title, self.size = name, size
        self.told = time.monotonic()

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left:  # a raw write may take a part only
            left = left[super().write(left) :]
        if time.monotonic() - self.told > 60 and not sys.stderr.isatty():
            self.told = time.monotonic()
            log.info("%s: %s of %s", self.title, _size(self.tell()), _size(self.size))
        return len(data)


def _retry(action: Callable[[], T], amount: Callable[[], int] = lambda: 0) -> T:
    """Do `action` again after a failure of the network, as long as `amount` grows; ATTEMPTS times where it does not."""
    left = ATTEMPTS
    while True:
        before = amount()
        try:
            return action()
        except Exception as error:
            left = ATTEMPTS if amount() > before else left - 1
            if left == 0 or not _may_pass(error):
                raise
            log.info("%s; trying again", _first_line(error))
            time.sleep(PAUSE_S)


def _may_pass(error: Exception) -> bool:
    """Whether `error` is one of the network or of a busy server."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 429) or status >= 500
    return _is_of_network(error)


def _is_of_network(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The HTTP library is requests, httpx or httpx2, depending on huggingface_hub: take what its error is derived from.
    theirs = [
        base for base in HfHubHTTPError.__mro__ if base.__module__.split(".")[0] not in ("builtins", "huggingface_hub")
    ]
    too_short = type(error) is OSError and error.errno is None  # http_get's check of the length
    broken = isinstance(error, (ConnectionError, TimeoutError, *theirs)) or too_short
    return broken and not isinstance(error, OfflineModeIsEnabled)


@contextlib.contextmanager
def _explained(version: ModelVersion, folder: Path, name: str, missing: Sequence[str], revision: str) -> Iterator[None]:
    """Turn the hub's refusals and a broken network into a UserError that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub_errors

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        repo, endpoint = version.hub_id, constants.ENDPOINT
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, hub_errors.OfflineModeIsEnabled):
            raise _unavailable(version, folder, missing, "HF_HUB_OFFLINE forbids asking the network") from error
        if isinstance(error, hub_errors.GatedRepoError) or status == 403 or (version.gated and status == 401):
            raise refused(version, status, getattr(error, "server_message", None)) from error
        if isinstance(error, hub_errors.RevisionNotFoundError):
            raise UserError(
                f"{repo} has no revision {revision} at {endpoint}",
                f"it was removed from the hub, or {folder / RECORD_FILE} is of another place",
                f"move {folder} away to begin anew, or unset HF_ENDPOINT",
            ) from error
        if isinstance(error, hub_errors.EntryNotFoundError):
            raise UserError(
                f"{repo} has no file {name} at revision {revision}",
                f"{endpoint} answered 404 for it",
                f"look at {endpoint}/{repo}/tree/{revision}; a file you have elsewhere goes to {folder / name}",
            ) from error
        if isinstance(error, hub_errors.RepositoryNotFoundError) or status in (401, 404):
            raise UserError(
                f"{endpoint} does not show {repo} (answer {status})",
                f"the repository does not exist there, is private, or the token is wrong ({token_in_words()})",
                "check HF_ENDPOINT and HF_TOKEN, or run hf auth login, and run this again",
            ) from error
        if status is not None or _is_of_network(error):
            raise _unavailable(version, folder, missing, f"{endpoint}: {_first_line(error)}") from error
        raise


def _unavailable(version: ModelVersion, folder: Path, missing: Sequence[str], why: str) -> UserError:
    missing = [name for name in missing if not _local(folder, name).is_file()]
    commit = read_record(folder).get("commit", version.revision)
    partial = sum(path.stat().st_size for path in (folder / WORK_FOLDER).glob("*.part"))
    kept = f"; {_size(partial)} that arrived are kept, and the next run continues there" if partial else ""
    return UserError(
        f"{len(missing)} files of model version {version.name} are missing in {folder}: {', '.join(missing)}",
        f"{why}{kept}",
        f"run the same command again with network, or {_by_hand(version, folder, commit)}",
    )


def _by_hand(version: ModelVersion, folder: Path, revision: str) -> str:
    quoted = f'"{folder}"' if " " in str(folder) else str(folder)
    terms = (
        f"    accept the terms at https://huggingface.co/{version.hub_id}, then: hf auth login\n"
        if version.gated
        else ""
    )
    what = f"download {version.hub_id} --local-dir {quoted}" + ("" if revision == "main" else f" --revision {revision}")
    return (
        f"fetch the files where there is network and put them into {folder}:\n"
        f"{terms}"
        f"    hf {what}\n"
        f"    huggingface-cli {what}   (the name of hf before huggingface_hub 0.34)"
    )


@contextlib.contextmanager
def _only_one_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it when a process dies."""
    from filelock import FileLock, Timeout

    work = folder / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is downloading into %s; waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checked_sha256(path: Path, etag: str) -> str | None:
    """Return the file's SHA-256 if its content is what `etag` names; delete it and return None otherwise."""
    sha256, git = _hashes(path)
    if etag in (sha256, git):
        return sha256
    path.unlink()
    return None


def _hashes(path: Path) -> tuple[str, str]:
    """Return the two hashes that the hub uses: SHA-256 for large files, and git's name of the content for small ones.

    git's is the SHA-1 of a header with the length and then the content.
    """
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            git.update(chunk)
    return sha256.hexdigest(), git.hexdigest()


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\?\S+", "?...", text)[:300]  # the storage's URLs carry long signatures
