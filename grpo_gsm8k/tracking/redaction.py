"""Replacement of secrets in everything that a run writes down."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECRET_NAME = re.compile(r"(?i)(^|[^a-z0-9])(api[_-]?)?(key|token|secret|password|passwd|credentials?)$")
SECRET_TEXT = re.compile(r"(?<=://)[^/\s@]+(?=@)|\b(?:hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{16,}")
HIDDEN = "***"
MIN_SECRET_CHARS = 8  # a shorter value of an environment variable may be an ordinary word


def plain(value: object) -> Any:
    """Return `value` as a round trip through JSON gives it: tuples as lists, paths and other objects as text."""
    return json.loads(json.dumps(value, default=str))


def redact(value: Any, name: str = "") -> Any:
    """Replace secrets: text under a secret-like name, values of secret-like environment variables, known tokens."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if value and SECRET_NAME.search(name):
        return HIDDEN
    for secret in (text for key, text in os.environ.items() if SECRET_NAME.search(key)):
        if len(secret) >= MIN_SECRET_CHARS:
            value = value.replace(secret, HIDDEN)
    return SECRET_TEXT.sub(HIDDEN, value)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables whose names are not those of secrets."""
    return {name: value for name, value in environment.items() if not SECRET_NAME.search(name)}


def redact_arguments(argv: Sequence[str]) -> list[str]:
    """Replace secrets in arguments given as `name=value`, `--name=value` or `--name value`."""
    shown: list[str] = []
    previous = ""
    for argument in argv:
        name, sign, value = argument.partition("=")
        if sign:
            shown.append(f"{redact(name)}={redact(value, name)}")
        else:
            shown.append(redact(argument, previous if previous.startswith("-") else ""))
        previous = argument
    return shown
