"""Who may talk to the server: the right key, the right name, and no other web page.

On the loopback address anyone on the machine may ask, but so could any web page in its browser: by a form, which the
content type stops, by a script, which gets no answer without CORS and is stopped by its origin, or by a name of its own
that it lets point to 127.0.0.1 (DNS rebinding), which the Host header betrays.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import UserError
from .errors import ApiError

KEY_VARIABLE = "FISH_SPEECH_API_KEY"
_LEAST_KEY, _MOST_KEY = 16, 512  # characters
_NEW_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
# The page is public, as a browser sends no key for it; so is whether the server lives. Neither says anything more.
PUBLIC = ("/", "/health")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]").split("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_key(key: str) -> str:
    """Return a key that can be sent in a header and is not guessed soon; raise UserError otherwise."""
    if not _LEAST_KEY <= len(key) <= _MOST_KEY or not all("!" <= letter <= "~" for letter in key):
        raise UserError(
            "the API key cannot be used",
            f"it must have {_LEAST_KEY}-{_MOST_KEY} letters, digits or signs of ASCII, and no spaces",
            f"make one: {_NEW_KEY}",
        )
    return key


def read_key(path: Path) -> str:
    """The key in a file, without the line end."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(4 * _MOST_KEY).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the key file {path}", str(error), f"make one: {_NEW_KEY} > {path}") from None


def key_needed(host: str) -> UserError:
    """What to say to one who binds elsewhere without a key."""
    return UserError(
        f"--host {host} lets other machines in",
        "without a key everyone on the network could speak with this voice",
        f"set {KEY_VARIABLE} or give --api-key-file (a key: {_NEW_KEY}), or leave --host out",
    )


class Guard:
    """ASGI middleware: checks name, origin and key before anything else is done, and adds protective headers."""

    def __init__(self, app: ASGIApp, key: str | None = None, names: Collection[str] | None = None):
        """`names`: the host names the server answers to; None: any."""
        self._app, self._key = app, key
        self._names = None if names is None else {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in known)]
            await send(message)

        scope["has_key"] = False
        try:
            self._check(scope)
        except ApiError as error:
            await error.response()(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._names is not None and _name_of(host) not in self._names:
            raise ApiError(421, "this server does not answer to this host name", "wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise ApiError(403, "other web pages may not use this server", "wrong_origin")
        scope["has_key"] = self._key is None or _is_bearer(headers.get("authorization", ""), self._key)
        if not scope["has_key"] and scope["path"] not in PUBLIC:
            challenge = {"www-authenticate": "Bearer"}
            raise ApiError(401, "the API key is missing or wrong", "invalid_api_key", None, challenge)


def _is_bearer(given: str, key: str) -> bool:
    scheme, _, token = given.partition(" ")
    fits = secrets.compare_digest(token.strip().encode("utf-8", "replace"), key.encode())
    return fits and scheme.lower() == "bearer"


def _name_of(host: str) -> str:
    """The name of a Host header, without its port."""
    name = host.lower().rpartition(":")[0] if not host.endswith("]") and ":" in host else host.lower()
    return name.strip("[]")
