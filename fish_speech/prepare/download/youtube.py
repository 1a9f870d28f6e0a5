"""What YouTube needs besides yt-dlp: a JavaScript runtime, for the puzzles that hide where its formats lie.

yt-dlp starts deno where it is installed, without rights to the files, programs and network of this machine, and hands
it the solver of the package yt-dlp-ejs. Neither is downloaded from here: "remote_components" stays empty.
"""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Any

from ...errors import UserError
from .reasons import causes

RUNTIME_VARIABLE = "FISH_SPEECH_JS_RUNTIME"
_INSTALL = 'pip install --upgrade "yt-dlp[default,deno]"'
_PAGE = re.compile(r"https?://([a-z]+\.)?(youtube(-nocookie)?\.com|youtu\.be)/", re.IGNORECASE)
# Failures that a missing runtime may cause: yt-dlp then asks as another kind of player, which is offered less.
_DOUBTFUL = ("no media", "not available", "refused", "download failed")


def js_runtimes() -> dict[str, dict]:
    """Return the runtime that yt-dlp may start: deno, which is also its default, or what the user asks for.

    Raises UserError for one that yt-dlp does not know.
    """
    asked = os.environ.get(RUNTIME_VARIABLE)
    if not asked:
        return {"deno": {}}
    if asked.lower() not in _known():
        why = f"yt-dlp knows {', '.join(sorted(_known())) or 'none: it is too old'}"
        fix = f"name one of these, or unset the variable; to have a newer yt-dlp: {_INSTALL}"
        raise UserError(f"{RUNTIME_VARIABLE}={asked} is no JavaScript runtime", why, fix)
    return {asked.lower(): {}}


def advice(error: BaseException, record: dict[str, Any], session: Any) -> str:
    """Return what to install, if it may be why a recording of YouTube failed; otherwise an empty text.

    `record` is the index's, with its reason in `failed`. Looks for the runtime, which starts it with --version.
    """
    if record["failed"].partition(":")[0] not in _DOUBTFUL or not _is_of_youtube(error, record):
        return ""
    runtimes = list(session.params["js_runtimes"])
    if not any(_is_usable(name) for name in runtimes):
        if runtimes == ["deno"]:
            return f"; YouTube needs deno, and it is missing or too old; to install deno: {_INSTALL}"
        asked = f"{RUNTIME_VARIABLE}={', '.join(runtimes)}"
        return f"; {asked} is missing or too old; install deno and unset the variable: {_INSTALL}"
    if not _has_solver():
        return f"; YouTube needs yt-dlp-ejs beside {runtimes[0]}, and it is missing; to install it: {_INSTALL}"
    return ""


def _is_of_youtube(error: BaseException, record: dict[str, Any]) -> bool:
    """Whether the extractor of YouTube's videos was at work; its lists need no runtime."""
    extractors = [record.get("extractor"), *(getattr(link, "ie", None) for link in causes(error))]
    known = next((str(name).lower() for name in extractors if name), None)
    return known == "youtube" if known else bool(_PAGE.match(record["url"]))


def _known() -> dict[str, Any]:
    import yt_dlp.globals

    table = getattr(yt_dlp.globals, "supported_js_runtimes", None)  # since 2025.11.12
    return table.value if table else {}


def _is_usable(name: str) -> bool:
    runtime = _known().get(name)
    found = runtime().info if runtime else None
    return bool(found and found.supported)


def _has_solver() -> bool:
    return importlib.util.find_spec("yt_dlp_ejs") is not None
