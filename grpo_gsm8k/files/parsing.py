"""Parsing of JSON and YAML from outside: whatever the bytes are, a value or a ValueError."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pydantic import ValidationError


def json_value(text: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for brackets nested deeper than Python's stack."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many nested brackets") from None


def yaml_value(text: bytes | str) -> Any:
    """Return the value of a YAML text. Raises ValueError with the kind of a YAML error, without its excerpt."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None


def first_problem(error: ValidationError) -> str:
    """Return where the first value of another kind is, and what is wrong with it, in one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the value'}: {first['msg']}"
