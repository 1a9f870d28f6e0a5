"""A small server on loopback that behaves as media sites do: pages, feeds, files with ranges, and their faults.

`files` maps paths to content; everything else is 404. `requests` is the log of what it was asked, `cuts` closes
connections in the middle of a file, `redirects` sends elsewhere.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..hub_server import Request

TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".html": "text/html; charset=utf-8", ".rss": "application/rss+xml",
         ".vtt": "text/vtt", ".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t"}  # fmt: skip


class Asked(Request):
    """A request to a media page."""

    @property
    def range_start(self) -> int | None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(wanted[1]) if wanted else None


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(
            sys.exc_info()[1], OSError
        ):  # a client that looks at the first bytes and goes away is no fault
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class MediaServer:
    """Serves `files` (path with a slash -> bytes) while it is entered."""

    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)  # path -> content type, where the suffix does not say it
    redirects: dict[str, str] = field(default_factory=dict)  # path -> Location
    statuses: dict[str, int] = field(default_factory=dict)  # path -> status to answer
    radios: set[str] = field(default_factory=set)  # paths that never end, with the headers of Icecast
    cuts: dict[str, list[int]] = field(default_factory=dict)  # path -> body bytes after which a connection is closed
    tags: dict[str, str] = field(default_factory=dict)  # path -> ETag
    requests: list[Asked] = field(default_factory=list)

    def __enter__(self) -> MediaServer:
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port: from now on connections are refused."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self._http = None

    _http: ThreadingHTTPServer | None = None

    def url(self, path: str) -> str:
        assert self._http is not None
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def asked_for(self, path: str) -> list[Asked]:
        return [asked for asked in self.requests if asked.path == path]


def _handler(server: MediaServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer()

        def _answer(self) -> None:
            path = self.path
            self.asked = Asked(self.command, path, {name.lower(): value for name, value in self.headers.items()})
            server.requests.append(self.asked)
            if path in server.redirects:
                self._send(302, {"Location": server.redirects[path]})
            elif path in server.statuses:
                self._send(server.statuses[path])
            elif path in server.radios:
                self._play_for_ever()
            elif path not in server.files:
                self._send(404)
            else:
                self._send_file(path, server.files[path])

        def _send_file(self, path: str, content: bytes) -> None:
            kind = server.types.get(path) or TYPES.get("." + path.rpartition(".")[2], "application/octet-stream")
            headers = {"Content-Type": kind, "Accept-Ranges": "bytes"}
            if path in server.tags:
                headers["ETag"] = server.tags[path]
            start, unchanged = self.asked.range_start, self.headers.get("If-Range") in (None, server.tags.get(path))
            if start is not None and start >= len(content):
                self._send(416, {"Content-Range": f"bytes */{len(content)}"})
            elif start is not None and unchanged:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._send(206, headers, content[start:])
            else:
                self._send(200, headers, content)

        def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
            self.asked.status = status
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            cuts = server.cuts.get(self.path)
            if cuts and body:
                body = body[: cuts.pop(0)]
                self.close_connection = True
            try:
                self.wfile.write(body)
                self.asked.sent = len(body)
            except OSError:  # the client looked at the first bytes and went away
                self.close_connection = True

        def _play_for_ever(self) -> None:
            self.close_connection = True
            self.send_response(200)
            for name, value in {"Content-Type": "audio/mpeg", "icy-name": "radio", "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(4096))
                    self.asked.sent += 4096
            except OSError:
                pass

    return Handler
