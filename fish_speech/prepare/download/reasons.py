"""Why a recording could not be had: what yt-dlp says, in one line and in words of ours, "category: details"."""

from __future__ import annotations

import errno
import re
from typing import Any

from .address import shown, text_line

_KINDS = [  # first match counts; what yt-dlp says, in words of ours
    (
        r"not available in your country|geo.?restrict|in your (country|region|location)|HTTP Error 451",
        "not available here",
    ),
    (r"private|members.only|sign in|log ?in|logged in|password|HTTP Error 401|age.restricted", "login needed"),
    (r"HTTP Error (404|410)|has been removed|does not exist|account .*terminated", "not found"),
    (r"HTTP Error 429", "too many requests"),
    (r"HTTP Error 403", "refused"),
    (r"HTTP Error 5\d\d", "server error"),
    (r"unsupported url scheme|HTTP Error 3\d\d", "bad redirect"),
    (r"DRM", "copy protected"),
    (r"unsupported url|no video formats|no (media|video) |requested format is not|not a valid url", "no media"),
    (r"unavailable|not available", "not available"),
    (
        r"bytes read|giving up after|timed out|connection|resolve|network|ssl|proxy|errno|unable to connect",
        "no connection",
    ),
]


class Refused(Exception):
    """A recording that we do not want; the text is the reason."""


def causes(error: BaseException) -> list[BaseException]:
    """Return the error and what led to it; yt-dlp keeps its causes in attributes of its own."""
    chain: list[BaseException] = []
    link: Any = error
    while isinstance(link, BaseException) and link not in chain:
        chain.append(link)
        link = (getattr(link, "exc_info", None) or (None, None))[1] or getattr(link, "cause", None) or link.__cause__
    return chain


def reason(error: BaseException, url: str) -> str:
    """Say in one line why a recording could not be had. Re-raises what is no fault of the page: a full disk, say."""
    for link in causes(error):
        if isinstance(link, Refused):
            return text_line(link) or "refused"
        local = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
        if isinstance(link, OSError) and (link.errno in local or (link.errno and link.filename is not None)):
            raise link
    said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0].strip()
    said = re.sub(r"^(\r?\[download\] Got error: |ERROR:? ?)+", "", said)
    said = re.split(r"; please report this|; see  ?https|\(caused by|[.;] *(Use|Try|See|Confirm)\b.*--", said)[0]
    said = re.sub(r"^\[[^\]]*\] ([^\s:]+: )?", "", said).replace(url, shown(url)).strip(" .;")
    words = re.sub(r"[a-z]+://\S+", "", said, flags=re.IGNORECASE)  # an address may well hold the word login
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, words, re.IGNORECASE)), "download failed")
    return f"{kind}: {text_line(said[:300]) or type(error).__name__}"
