"""Read a request for speech: its body within limits of size and time, its fields within their ranges.

Fields as OpenAI has them; those it does not know are passed over, as clients send `instructions` and others. Our own:
seed, temperature, top_p, repetition_penalty, pitch (semitones), volume (dB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from ..text.segments import split_segments
from ..versions import SamplingDefaults
from .errors import ApiError
from .formats import available
from .limits import Limits

if TYPE_CHECKING:
    from ..synthesis.speak import SpeechRequest
    from ..synthesis.voices import Reference

# Names that clients have built in; they get the one model there is.
MODEL_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
_SWALLOWED = 8 << 20  # bytes of a body that is too large which are read before the answer, so that it is heard
_MOST_SEED = 2**63 - 1


class SpeechBody(BaseModel):
    """The fields of POST /v1/audio/speech."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    input: str
    model: str | None = Field(None, max_length=256)
    voice: str | None = Field(None, max_length=256)
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio"] = "audio"  # sse is not offered, and audio instead would be no answer
    speed: float = 1.0
    pitch: float = 0.0
    volume: float = 0.0
    seed: int | None = Field(None, ge=0, le=_MOST_SEED)
    temperature: float | None = None  # as the model version has it, likewise below
    top_p: float | None = None
    repetition_penalty: float | None = None


async def read_body(request: Request, limits: Limits) -> bytes:
    """The JSON of a request. Raises ApiError for another content type (415), too many bytes (413) or seconds (408)."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        # A form of another web page can send text/plain here without asking; application/json it cannot.
        raise ApiError(415, "the content type must be application/json", "unsupported_media_type")
    try:
        length = int(request.headers.get("content-length", "0"))
        most = max(_SWALLOWED, limits.body_bytes)
        body = b"" if length > most else await asyncio.wait_for(_read(request, limits, most), limits.body_s)
    except ValueError:
        raise ApiError(400, "the content length is no number", "invalid_request") from None
    except asyncio.TimeoutError:
        message = f"the request took more than {limits.body_s:g} s to arrive"
        raise ApiError(408, message, "timeout", None, {"connection": "close"}) from None
    except ClientDisconnect:
        raise ApiError(400, "the request broke off", "invalid_request") from None  # nobody hears this
    if len(body) > limits.body_bytes or length > limits.body_bytes:
        message = f"the request is too large: at most {limits.body_bytes} bytes"
        raise ApiError(413, message, "request_too_large", None, {"connection": "close"})
    return body


async def _read(request: Request, limits: Limits, most: int) -> bytes:
    """The body, cut one byte above the limit; a larger one is read on, and dropped, up to `most` bytes."""
    body, swallowed = bytearray(), 0
    async for data in request.stream():
        body += data[: limits.body_bytes + 1 - len(body)]
        swallowed += len(data)
        if swallowed > most:
            break
    return bytes(body)


def parse_body(data: bytes, limits: Limits, model: str) -> SpeechBody:
    """Check JSON against fields and limits; raises ApiError that names the first field at fault."""
    try:
        body = SpeechBody.model_validate_json(data)
    except ValidationError as error:
        raise _first_problem(error) from None
    if len(body.input) > limits.characters:
        message = f"the text has {len(body.input)} characters; at most {limits.characters} are spoken at once"
        raise ApiError(400, message, "string_above_max_length", "input")
    if not split_segments(body.input, 200):
        raise ApiError(400, "there is nothing to say: the text has no letters or digits", "empty_text", "input")
    if body.model not in (None, model, *MODEL_ALIASES):
        raise ApiError(404, f"there is no such model; this server speaks with {model}", "model_not_found", "model")
    if not available(body.response_format):
        message = f"this server cannot write {body.response_format}: its libsndfile is too old; take wav or flac"
        raise ApiError(400, message, "unsupported_format", "response_format")
    return body


def _first_problem(error: ValidationError) -> ApiError:
    problem: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or None
    if problem["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {problem['msg']}", "invalid_json")
    if problem["type"] == "missing":
        return ApiError(400, f"the field {field} is missing", "missing_required_parameter", field)
    if field is None:
        return ApiError(400, "the body must be a JSON object", "invalid_type")
    kind = "invalid_type" if problem["type"].endswith("_type") else "invalid_value"
    return ApiError(400, f"{field}: {problem['msg']}", kind, field)


def speech_request(
    body: SpeechBody, references: Sequence[Reference], seed: int, usual: SamplingDefaults
) -> SpeechRequest:
    """What the speaker is asked; `seed` and `usual` are taken where the client says nothing.

    Raises ApiError for senseless settings.
    """
    from ..synthesis.effects import Effects
    from ..synthesis.sampling import SamplingConfig
    from ..synthesis.speak import SpeechRequest

    try:
        said = {name: getattr(body, name) for name in asdict(usual)}
        sampling = SamplingConfig(**asdict(usual) | {name: value for name, value in said.items() if value is not None})
        effects = Effects(body.speed, body.pitch, body.volume)
    except ValueError as error:
        message = str(error)
        field = next((name for name in SpeechBody.model_fields if message.startswith(name)), None)
        raise ApiError(400, message, "invalid_value", field) from None
    seed = seed if body.seed is None else body.seed
    return SpeechRequest(body.input, references, sampling=sampling, seed=seed, effects=effects)
