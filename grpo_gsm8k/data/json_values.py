"""JSON without silent losses, and the values of other files as JSON: an exact conversion or an error."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from grpo_gsm8k.errors import one_line

_NAMES_SHOWN = 12
_NAME_SHOWN = 40  # characters


def parse_json(text: str) -> Any:
    """Parse JSON. A number that a float would round becomes a Decimal; repeated keys and NaN raise ValueError."""
    return json.loads(text, object_pairs_hook=_unique_keys, parse_float=_exact_float, parse_constant=_refuse_constant)


def json_value(value: object, column: str) -> Any:
    """Return a value as JSON: dates and exact decimals as text, NaN as null. Raises ValueError with the column."""
    match value:
        case None | bool() | int():
            return value
        case str():
            refuse_surrogates(value, f"column {column}")
            return value
        case float():
            return _finite(value, column)
        case Decimal():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case list() | tuple():
            return [json_value(item, column) for item in value]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {json_value(key, column): json_value(item, f"{column}.{key}") for key, item in value.items()}
    raise ValueError(f"column {column} holds {kind_name(value)}, which JSON does not have: remove or convert it")


def is_missing(value: object) -> bool:
    """Whether a value is null, NaN (which pandas writes for null), or a blank text."""
    nan = isinstance(value, float) and math.isnan(value)
    return value is None or nan or (isinstance(value, str) and not value.strip())


def refuse_surrogates(text: str, name: str) -> None:
    """Raise ValueError for a text that cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} contains an unpaired surrogate, which UTF-8 cannot encode") from None


def kind_name(value: object) -> str:
    """Return what a value is, in the words of JSON."""
    names = {str: "text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    number = isinstance(value, int | float | Decimal)
    return names.get(type(value), "a number" if number else f"a value of type {type(value).__name__}")


def listed(names: Sequence[object]) -> str:
    """Return names of columns or keys for a message: the first of many, the start of a long one."""
    shown = [one_line(str(name))[:_NAME_SHOWN] for name in names[:_NAMES_SHOWN]]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{', '.join(shown)}{more}" or "none"


def _finite(value: float, column: str) -> float | None:
    if math.isinf(value):
        raise ValueError(f"column {column} holds an infinite number, which JSON does not have: remove or convert it")
    return None if math.isnan(value) else value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:_NAME_SHOWN]!r} occurs twice in one object")
    return found


def _exact_float(text: str) -> float | Decimal:
    """Return a Decimal where a float would round the number."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text[:_NAME_SHOWN]} is out of range") from None
    rounded = float(text)
    return rounded if Decimal(repr(rounded)) == number else number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
