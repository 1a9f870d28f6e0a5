"""The packages that the toolkit cannot do without: there, of a version it was made for, and whole."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib import metadata

from .findings import Finding, describe
from .install import in_range, install_toolkit, is_newer

_MODULES = {  # where it is not the package's own name
    "hydra-core": "hydra",
    "protobuf": "google.protobuf",
    "pyyaml": "yaml",
    "openai-whisper": "whisper",
}


def look_at_missing(needed: Mapping[str, str]) -> Iterator[Finding]:
    """All packages that are not installed, in one finding: one command brings them all."""
    absent = [name for name in needed if _version(name) is None]
    if absent:
        found = f"{len(absent)} of {len(needed)} are not installed: {', '.join(absent)}"
        yield Finding("packages", "wrong", found, install_toolkit())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def look_at_package(name: str, specifier: str) -> Iterator[Finding]:
    """Import one package by its name on PyPI; `specifier` says which versions will do."""
    label, version = f"package {name}", _version(name)
    if version is None:
        return  # look_at_missing says so
    again = f'pip install --force-reinstall --no-deps "{name}{specifier}"'
    try:
        importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
    except (Exception, SystemExit) as error:
        yield Finding(label, "wrong", f"{version} cannot be imported: {describe(error)}", again)
        return
    if in_range(version, specifier):
        yield Finding(label, "good", version)
    elif is_newer(version, specifier):
        found = f"{version} is newer than what the toolkit was tried with: {specifier}"
        yield Finding(label, "note", found, f'if it makes trouble: pip install "{name}{specifier}"')
    else:
        yield Finding(label, "wrong", f"{version} is too old; needed: {specifier}", f'pip install "{name}{specifier}"')
