"""A small server on loopback that speaks the part of the Hugging Face hub's API that downloads use.

`HEAD` and `GET /REPO/resolve/REVISION/FILE` answer as the hub does: a large file (at least `large_bytes`) is redirected
to a storage URL and named by its SHA-256, a small one is sent at once and named by its git hash. Ranges work.
`faults` make it misbehave; `requests` is the log of what it was asked.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOLVE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
STORAGE = re.compile(r"^/storage/(?P<sha256>[0-9a-f]{64})$")


def git_hash(content: bytes) -> str:
    """Return git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Request:
    """One request as the server saw it; `sent` counts the bytes of the answer's body."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Faults:
    """What goes wrong. Each concerns bodies of GET unless it says otherwise."""

    cut_after: list[int] = field(default_factory=list)  # one connection each: bytes sent before it is closed
    wrong_bytes: set[str] = field(default_factory=set)  # files whose content is not what the hash says
    status: dict[str, int] = field(default_factory=dict)  # HEAD too: file -> status to answer
    error_code: str = ""  # X-Error-Code of those answers
    status_after_cut: int = 0  # once all cuts are used up, GET answers this
    no_hash: bool = False  # HEAD: leave out ETag
    ignore_range: bool = False
    cut_happened: bool = False


class HubServer:
    """Serves `commits`: commit hash -> file -> content. `branches` maps names such as main to commits."""

    def __init__(self, repo: str, large_bytes: int = 1000):
        self.repo, self.large_bytes = repo, large_bytes
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.token: str | None = None  # required by resolve URLs, if set: the repository is gated
        self.accepted = True  # whether the token's account accepted the terms
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Publish `files` on `branch` and return the commit's hash."""
        name = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def gets(self) -> list[Request]:
        """Return the requests that asked for content."""
        return [request for request in self.requests if request.method == "GET"]

    def bytes_sent(self) -> int:
        """Return how many bytes of content left the server."""
        return sum(request.sent for request in self.gets())


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        request_log: Request

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            self.request_log = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            hub.requests.append(self.request_log)
            storage, resolve = STORAGE.match(self.path), RESOLVE.match(self.path)
            if storage:
                for files in hub.commits.values():
                    for name, content in files.items():
                        if hashlib.sha256(content).hexdigest() == storage["sha256"]:
                            self._send_file(name, content, {"ETag": '"of-the-storage"'})
                            return
                self._send(404)
            elif resolve and resolve["repo"] == hub.repo:
                self._resolve(resolve["revision"], resolve["file"])
            else:
                self._send(404, {"X-Error-Code": "RepoNotFound"})

        def _resolve(self, revision: str, name: str) -> None:
            commit = hub.branches.get(revision, revision)
            sent = self.request_log.headers.get("authorization")
            if hub.token and sent is None:
                self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "access is restricted"})
            elif hub.token and sent != f"Bearer {hub.token}":
                self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            elif hub.token and not hub.accepted:
                told = "you are not in the authorized list"
                self._send(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": told})
            elif name in hub.faults.status:
                code = {"X-Error-Code": hub.faults.error_code} if hub.faults.error_code else {}
                self._send(hub.faults.status[name], code)
            elif commit not in hub.commits:
                self._send(404, {"X-Error-Code": "RevisionNotFound"})
            elif name not in hub.commits[commit]:
                self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            else:
                self._send_or_redirect(commit, name, hub.commits[commit][name])

        def _send_or_redirect(self, commit: str, name: str, content: bytes) -> None:
            headers = {"X-Repo-Commit": commit}
            if len(content) < hub.large_bytes:
                if not hub.faults.no_hash:
                    headers["ETag"] = f'"{git_hash(content)}"'
                self._send_file(name, content, headers)
                return
            sha256 = hashlib.sha256(content).hexdigest()
            if not hub.faults.no_hash:
                headers["X-Linked-Etag"] = f'"{sha256}"'
            headers["X-Linked-Size"] = str(len(content))
            headers["Location"] = f"http://localhost:{hub.port}/storage/{sha256}"  # another host, as the real storage
            self._send(302, headers)

        def _send_file(self, name: str, content: bytes, headers: dict[str, str]) -> None:
            faults = hub.faults
            if self.command == "GET" and faults.cut_happened and not faults.cut_after and faults.status_after_cut:
                self._send(faults.status_after_cut)
                return
            if name in faults.wrong_bytes:
                content = bytes(byte ^ 1 for byte in content)
            wanted = re.fullmatch(r"bytes=(\d+)-", self.request_log.headers.get("range", ""))
            status, start = 200, 0
            if wanted and not faults.ignore_range:
                status, start = 206, int(wanted[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(status, {**headers, "Accept-Ranges": "bytes"}, content[start:])

        def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
            self.request_log.status = status
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD" or not body:
                return
            if hub.faults.cut_after:
                body = body[: hub.faults.cut_after.pop(0)]
                hub.faults.cut_happened = True
                self.close_connection = True
            self.request_log.sent = len(body)
            self.wfile.write(body)

    return Handler
