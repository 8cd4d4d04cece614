"""The overrides of a command line: which keys they set, and maps that replace instead of being merged."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from grpo_gsm8k.config import Config
from grpo_gsm8k.tracking.saved_config import CONF, compose_values, field_names, section_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

    from grpo_gsm8k.tracking.saved_config import Values

ABSENT = object()


def parse(arguments: Sequence[str]) -> list[Override]:
    """Parse `key=value` arguments. Raises HydraException."""
    parsed: list[Override] = OverridesParser.create().parse_overrides(list(arguments))
    return parsed


def compose_arguments(arguments: Sequence[str]) -> Values:
    """Compose conf/ with the arguments; a map such as `policy_gradient.rewards={correct:1}` replaces the whole map.

    Hydra alone would merge it. Raises HydraException or OmegaConfBaseException.
    """
    given = parse(arguments)
    maps = [_map_of(override) for override in given]
    # `++`: a struct, which Hydra's configurations are, takes no new names otherwise.
    words = [f"++{word.lstrip('+')}" if found else word for word, found in zip(arguments, maps, strict=True)]
    values = compose_values(words)
    for place, found in enumerate(maps):
        if found is not None:
            _drop_other_names(values, found, given[place + 1 :])
    return values


def groups_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options that are chosen for configuration groups, such as `{"preset": "cpu_demo"}`."""
    return {o.key_or_group: str(o.value()) for o in parse(arguments) if _is_group(o)}


def known_groups(arguments: Sequence[str]) -> dict[str, str]:
    """Return `groups_of` recorded arguments, without what this version cannot read or does not have."""
    pairs = (argument.lstrip("+").partition("=") for argument in arguments)
    return {group: name for group, _, name in pairs if group and (CONF / group / f"{name}.yaml").is_file()}


def all_keys(kind: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return all dotted keys; a map of free names counts as one."""
    keys: list[str] = []
    for key, name in field_names(kind).items():
        section = section_of(kind, name)
        keys += [f"{prefix}{key}"] if section is None else all_keys(section, f"{prefix}{key}.")
    return keys


def keys_set(arguments: Sequence[str]) -> list[str]:
    """Return the dotted keys that arguments set directly; a section given as a map counts as each of its keys."""
    keys: list[str] = []
    for override in parse(arguments):
        if not _is_group(override):
            value = None if override.is_delete() else override.value()
            keys += _leaves(override.key_or_group, value)
    return keys


def value_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that choose no group."""
    return [word for word, override in zip(arguments, parse(arguments), strict=True) if not _is_group(override)]


def only(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the arguments that set one of `keys`."""
    return [word for word, override in zip(arguments, parse(arguments), strict=True) if override.key_or_group in keys]


def differing(one: Values, other: Values) -> list[str]:
    """Return the dotted keys in which two compositions differ; a map of free names counts as one key."""
    return [key for key in all_keys() if value_at(one, key) != value_at(other, key)]


def value_at(values: Values, key: str) -> Any:
    """Return the value of a dotted key; ABSENT without one."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return ABSENT
        found = found[part]
    return found


def set_value(values: Values, key: str, value: object) -> None:
    """Set a dotted key in place; ABSENT removes it."""
    *parents, last = key.split(".")
    for part in parents:
        values = values.setdefault(part, {})
    if value is ABSENT:
        values.pop(last, None)
    else:
        values[last] = value


def _is_group(override: Override) -> bool:
    if override.is_delete() or not (CONF / override.key_or_group).is_dir():
        return False
    return not isinstance(override.value(), dict)  # a map sets keys of the section


def _map_of(override: Override) -> tuple[str, list[str]] | None:
    """Return key and names if the override gives a whole map of free names."""
    value = None if override.is_delete() else override.value()
    key = override.key_or_group
    return (key, [str(name) for name in value]) if isinstance(value, dict) and key in _maps() else None


def _drop_other_names(values: Values, given: tuple[str, list[str]], later: Sequence[Override]) -> None:
    key, names = given
    added = [o.key_or_group.removeprefix(f"{key}.") for o in later if o.key_or_group.startswith(f"{key}.")]
    again = [name for name, found in ((o.key_or_group, _map_of(o)) for o in later) if found and name == key]
    kept = {name: value for name, value in value_at(values, key).items() if name in (*names, *added) or again}
    set_value(values, key, kept)


def _leaves(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and key not in _maps():
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key


@functools.cache
def _maps() -> frozenset[str]:
    """Return the keys whose values are maps of free names."""
    return frozenset(key for key in all_keys() if _holds_a_map(key))


def _holds_a_map(key: str) -> bool:
    kind: type[BaseModel] = Config
    *sections, last = key.split(".")
    for part in sections:
        kind = section_of(kind, field_names(kind)[part]) or kind
    return get_origin(kind.model_fields[field_names(kind)[last]].annotation) is dict
