"""The addresses of the server: speech, models, voices, health and the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from ..versions import SamplingDefaults
from . import page
from .errors import as_api_error, handle_errors
from .formats import FORMATS, rate_of
from .queue import READY, HungUp, Job, SpeechQueue
from .requests import parse_body, read_body, speech_request
from .security import Guard
from .voices import VoiceShelf

log = logging.getLogger(__name__)

_PIECE = 1 << 16  # bytes sent at once, so that a slow reader is seen to read
ABORT = "fish_speech.abort"  # in the scope, by http.py: breaks the connection off


def create_app(
    queue: SpeechQueue,
    voices: VoiceShelf,
    model: str,
    key: str | None = None,
    names: Collection[str] | None = None,
    seed: int = 42,
    sampling: SamplingDefaults | None = None,
) -> FastAPI:
    """The server's application.

    model: the name it is offered by. key: what clients must send, if any. names: hosts it answers to; None: any.
    seed, sampling: for requests that name none; None draws as 1.5 does.
    """
    usual = sampling or SamplingDefaults()
    app = FastAPI(title="fish-speech-voice-toolkit", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, key=key, names=names)
    handle_errors(app)
    started = int(time.time())

    @app.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        body = parse_body(await read_body(request, queue.limits), queue.limits, model)
        queue.check_ready()
        references = await run_in_threadpool(voices.references, body.voice)
        return SpokenResponse(queue, queue.submit(speech_request(body, references, seed, usual), body.response_format))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        row = {"id": model, "object": "model", "created": started, "owned_by": "fish-speech-voice-toolkit"}
        return {"object": "list", "data": [row]}

    @app.get("/v1/voices")
    async def list_voices() -> dict[str, Any]:
        return {"object": "list", "data": await run_in_threadpool(voices.rows)}

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        told: dict[str, Any] = {"status": queue.state, "needs_key": key is not None}
        if request.scope["has_key"]:
            told |= {"model": model, "speaking": queue.is_speaking, "waiting": queue.length}
            told |= {"most_waiting": queue.limits.waiting, "most_characters": queue.limits.characters}
        return JSONResponse(told, 200 if queue.state == READY else 503)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> HTMLResponse:
        return HTMLResponse(
            page.render(usual), headers={"content-security-policy": page.policy(), "cache-control": "no-cache"}
        )

    return app


class SpokenResponse(Response):
    """The sound of a job, sent as it comes; the head goes out with the first bytes, so that what fails before has its code.

    A client that hangs up ends the job. If speaking fails later, or the client takes nothing for too long, the connection
    is broken off, so that nobody takes a part for the whole.
    """

    def __init__(self, queue: SpeechQueue, job: Job):
        super().__init__(media_type=FORMATS[job.format].media_type)
        self._queue, self._job = queue, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        started, begun = time.monotonic(), False
        try:
            while data := await self._job.read():
                if not begun:
                    begun = True
                    await self._begin(scope, send)
                for at in range(0, len(data), _PIECE):
                    message = {"type": "http.response.body", "body": data[at : at + _PIECE], "more_body": True}
                    await asyncio.wait_for(send(message), self._queue.limits.stall_s)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            spent = time.monotonic() - started
            log.info("spoke %.1f s of %s in %.1f s", self._job.seconds, self._job.format, spent)
        except HungUp:
            pass
        except asyncio.TimeoutError:
            log.warning("a client took no sound for %g s; broken off", self._queue.limits.stall_s)
            await _break_off(scope)
        except Exception as error:
            if not begun:
                raise as_api_error(error) from error
            log.warning("broken off after %.1f s of sound", self._job.seconds)
            await _break_off(scope)
        finally:
            watch.cancel()
            self._queue.release(self._job)

    async def _begin(self, scope: Scope, send: Send) -> None:
        speaker_rate = self._queue.sample_rate
        self.headers["x-seed"] = str(self._job.request.seed)
        self.headers["x-sample-rate"] = str(rate_of(self._job.format, speaker_rate))
        self.headers["cache-control"] = "no-store"
        del self.headers["content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._job.stop()


async def _break_off(scope: Scope) -> None:
    """Cut the connection, so that a chunked answer has no end."""
    abort = scope.get(ABORT)
    if abort is None:
        raise ConnectionAbortedError("the answer cannot be finished")
    abort()
    await asyncio.sleep(0)  # the connection notices
