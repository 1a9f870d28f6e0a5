"""A yt-dlp session that does what this package says and nothing that a page or a user's configuration says.

No plugin is loaded, and no program is started but, for YouTube, a JavaScript runtime (see youtube.py).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from .guard import Guard, check_size
from .progress import Bar, Log
from .youtube import js_runtimes

RETRIES = 5
# Several formats of one recording: sound alone, else the smallest picture that is likely to have the same sound.
_PROTOCOL = "[protocol~='^(https?|m3u8_native|http_dash_segments)$']"
_FORMAT = f"bestaudio{_PROTOCOL}/best[height<=?480]{_PROTOCOL}/best{_PROTOCOL}"
_NO_FFMPEG = str(Path(__file__).with_name("no-ffmpeg"))  # there is no such file


@contextlib.contextmanager
def open_session(show_progress: bool) -> Iterator[Any]:
    """Yield a YoutubeDL that does what this file says and nothing that a user's configuration says."""
    try:
        import yt_dlp
        import yt_dlp.globals
    except ImportError as error:
        why = f"addresses are read with yt-dlp, and it cannot be imported: {error}"
        raise UserError("yt-dlp is missing or too old", why, 'pip install --upgrade "yt-dlp[default]"') from None
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

    yt_dlp.globals.plugin_dirs.value = []  # as YTDLP_NO_PLUGINS=1 does
    # As --ffmpeg-location does, for the parts of yt-dlp that have no options: ffmpeg is never started.
    FFmpegPostProcessor._ffmpeg_location.set(_NO_FFMPEG)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Bar()) if show_progress else None
        session = stack.enter_context(yt_dlp.YoutubeDL(_options(bar)))
        session.urlopen = Guard(session.urlopen)  # extractors and downloaders all open addresses through it
        yield session


def _options(bar: Bar | None) -> dict[str, Any]:
    cookies = os.environ.get("FISH_SPEECH_COOKIES")
    try:
        jar = io.StringIO(Path(cookies).read_text(encoding="utf-8")) if cookies else None
    except (OSError, ValueError) as error:
        fix = "name a cookies.txt in Netscape's format, or unset the variable"
        raise UserError(f"FISH_SPEECH_COOKIES={cookies} cannot be read", str(error), fix) from None
    return {
        "format": _FORMAT,
        "noplaylist": True,
        "extract_flat": "in_playlist",  # entries are resolved one by one, as they are fetched
        "ignoreerrors": False,
        "logger": Log(),
        "quiet": True,
        "noprogress": True,
        "color": "no_color",
        "progress_hooks": [check_size, *([bar.hook] if bar else [])],
        "continuedl": True,
        "nopart": False,
        "overwrites": False,
        "updatetime": False,
        "socket_timeout": 20.0,  # seconds without a byte
        "retries": RETRIES,
        "fragment_retries": RETRIES,
        "skip_unavailable_fragments": False,  # the default leaves holes in the recording
        "retry_sleep_functions": {"http": _pause_s, "fragment": _pause_s},
        "cachedir": False,
        "cookiefile": jar,
        "geo_bypass": False,
        "usenetrc": False,
        "enable_file_urls": False,
        "external_downloader": "native",
        "fixup": "never",
        "ffmpeg_location": _NO_FFMPEG,
        "js_runtimes": js_runtimes(),
        "remote_components": [],
    }


def _pause_s(n: int) -> float:
    """Seconds before the n-th retry; yt-dlp passes `n` by its name."""
    return min(2.0**n, 30.0)
