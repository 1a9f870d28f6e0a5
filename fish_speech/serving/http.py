"""Run the application: a port that is taken first, connections that may not dawdle, an ending that finishes the sentence."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UserError
from .app import ABORT
from .limits import Limits
from .queue import FAILED, SpeechQueue

_MOST_CONNECTIONS = 512
_MOST_HEADERS = 16 << 10  # bytes


def bind(host: str, port: int) -> socket.socket:
    """Take the port, before anything slow is done. Raises UserError if another program has it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host} is no address of this machine", str(error), "use 127.0.0.1") from None
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets several programs take a port otherwise
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(128)
    except (OSError, OverflowError) as error:
        taken.close()
        raise UserError(f"cannot listen on {host} port {port}", str(error), "choose another --port") from None
    return taken


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """A connection that closes if the head of a request does not come in time, and can be broken off by the application."""

    class Connection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            if self._deadline is None and self._is_idle():
                self._expect_headers()
            super().data_received(data)

        def handle_events(self) -> None:
            try:
                super().handle_events()
            except h11.LocalProtocolError:  # nonsense after the answer has begun
                self.transport.abort()
                return
            if not self._is_idle():
                self._stop_waiting()
                cast("dict[str, Any]", self.scope)[ABORT] = self._cut

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _cut(self) -> None:
            """Reset the connection: a client without chunks, as of HTTP/1.0, sees that as well."""
            once = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, once)
            self.transport.abort()

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect_headers(self) -> None:
            self._deadline = self.loop.call_later(limits.headers_s, self.transport.abort)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Connection


class SpeechServer(uvicorn.Server):
    """A server around a queue: ends when loading fails, and lets no new sentence begin when it is told to stop."""

    def __init__(self, app: FastAPI, queue: SpeechQueue):
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(queue.limits),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=math.ceil(queue.limits.grace_s) + 5,  # by then all is cut
                h11_max_incomplete_event_size=_MOST_HEADERS,
            )
        )
        self._queue = queue

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._queue.state == FAILED

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._queue.close()
        patience = asyncio.get_running_loop().call_later(self._queue.limits.grace_s, self._queue.cut)
        await super().shutdown(sockets)
        patience.cancel()
        if self.force_exit:  # Ctrl+C again
            self._queue.cut()
            await asyncio.sleep(0.1)  # until the connections are broken off


def serve(app: FastAPI, queue: SpeechQueue, taken: socket.socket) -> None:
    """Load and serve until Ctrl+C or SIGTERM; the sentence being spoken is finished. Raises what loading raised."""
    server = SpeechServer(app, queue)
    queue.start()
    try:
        server.run([taken])
    finally:
        taken.close()
        queue.join(timeout_s=10)
    if queue.error is not None:
        raise queue.error
