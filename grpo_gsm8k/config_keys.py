"""Keys of the configuration and arguments of the command line: names, texts that look like numbers, error messages."""

from __future__ import annotations

import difflib
import re
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_ARGUMENT = re.compile(r"(?P<key>\+{0,2}[\w.@/]+)=(?P<value>.*)", re.DOTALL)
_NOT_OVERRIDDEN = re.compile(r"Could not (?:override|append to config|delete)[^']*'(?P<key>[^']+)'")
_OPTIONS = re.compile(
    r"Could not find '(?P<choice>[^']+)'.*?Available options in '[^']+':\n(?P<names>(?:\t\S+\n?)+)", re.DOTALL
)
_SWEEP = re.compile(r"Sweep parameters '(?P<argument>.+)' requires --multirun", re.DOTALL)
_MISSING = re.compile(r"Missing mandatory value: (?P<key>[\w.]+)")
_CUTOFF = 0.6  # difflib's default: similar enough to be a typo
_CUTOFF_OF_KEYS = 0.8  # of whole keys, which share the name of their section
_SYNONYMS = {"learning_rate": "lr"}  # names in other libraries
_SHOWN = 3


def dotted_keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the annotation of every key below a section, by its dotted name: `learner.lr`."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= dotted_keys(field.annotation, f"{key}.")
        else:
            found[key] = field.annotation
    return found


def unknown_key(key: str, keys: Mapping[str, Any], groups: Iterable[str] = ()) -> str:
    """Return the message about a key that does not exist, with the key that was probably meant."""
    key = key.lstrip("+")
    if any(get_origin(keys.get(parent)) is dict for parent in _parents(key)):
        return f"{key}: unknown key; a new entry of a map needs a plus sign: +{key}=VALUE"
    found = _similar(key, [*keys, *([] if "." in key else groups)])
    if not found:
        return f"{key}: unknown key; look up the name in docs/configuration.md"
    more = f" (or {', '.join(found[1:])})" if found[1:] else ""
    return f"{key}: unknown key; did you mean {found[0]}?{more}"


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _similar(key: str, keys: list[str]) -> list[str]:
    """Return keys with the same last part, those of a similar section first, or else the one with a similar name."""
    section, _, last = key.rpartition(".")
    last = _SYNONYMS.get(last, last)
    same = [k for k in keys if _last(k) == last]
    if same:
        level = [k for k in same if k.count(".") == key.count(".")]
        near = set(difflib.get_close_matches(f"{section}.{last}", level, _SHOWN, _CUTOFF_OF_KEYS))
        return sorted(same, key=lambda k: (k not in near, k.count(".")))[:_SHOWN]
    if typos := difflib.get_close_matches(key, keys, 1, _CUTOFF_OF_KEYS):
        return typos
    siblings = {_last(k): k for k in keys if k.rpartition(".")[0] == section}
    others = {_last(k): k for k in reversed(keys)}
    for names, cutoff in ((siblings, _CUTOFF), (others, _CUTOFF_OF_KEYS)):
        if close := difflib.get_close_matches(last, list(names), 1, cutoff):
            return [names[close[0]]]
    return []


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def keep_texts(arguments: Sequence[str], keys: Mapping[str, Any], groups: Iterable[str]) -> list[str]:
    """Quote values of text keys that Hydra would read as numbers or booleans: `name=1e3` keeps its text."""
    texts = {key for key, annotation in keys.items() if _is_text(annotation)} | set(groups)
    return [_quoted(argument, texts) for argument in arguments]


def _quoted(argument: str, texts: set[str]) -> str:
    match = _ARGUMENT.fullmatch(argument)
    if match is None or match["key"].lstrip("+") not in texts:
        return argument
    try:
        value = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return argument  # the composition reports it
    return f'{match["key"]}="{match["value"]}"' if isinstance(value, int | float) else argument


def _is_text(annotation: Any) -> bool:
    """Return whether a key takes texts and no numbers."""
    choices = set(_choices(annotation))
    return bool(choices & {str, Path}) and not choices & {int, float, bool}


def _choices(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of an annotation, without their constraints."""
    if get_origin(annotation) is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _choices(part)
    else:
        yield annotation


def explain(error: Exception, keys: Mapping[str, Any], groups: Iterable[str]) -> str:
    """Return one line about an error of Hydra or OmegaConf, with the fix where it is known."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _explain_grammar(str(error.override), text)
    if "Ambiguous value for argument" in text:
        argument = text.partition("'")[2].partition("'\n")[0]
        return f"{_explain_grammar(argument, 'a comma separates values')}; or add -m to run one after another"
    if sweep := _SWEEP.search(text):
        return f"{sweep['argument']} stands for several values: add -m to run one after another"
    if missing := _MISSING.search(text):
        return f"{missing['key']} is missing: set {missing['key']}=VALUE"
    if isinstance(error, MissingConfigException) and (options := _OPTIONS.search(text)):
        return _explain_option(options["choice"], options["names"].split())
    if (match := _NOT_OVERRIDDEN.search(text)) and "is already" not in text:
        return unknown_key(match["key"], keys, groups)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _explain_option(choice: str, names: list[str]) -> str:
    group, _, name = choice.rpartition("/")
    close = difflib.get_close_matches(name, names, 1, _CUTOFF)
    meant = f"did you mean {group}={close[0]}? " if close else ""
    return f"{group}={name} does not exist: {meant}options: {', '.join(names)}"


def _explain_grammar(argument: str, reason: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument}: not of the form key=value, such as command=data or learner.lr=1e-5"
    reason = " ".join(reason.partition("\nSee ")[0].removeprefix(f"Error parsing override '{argument}'").split())
    bare = value.strip("'\"").replace('"', '\\"')
    listed = f" or, for a list, '{key}=[{bare}]'" if "," in bare and "[" not in bare else ""
    return f"{key}: the value cannot be parsed ({reason}); quote it: '{key}=\"{bare}\"'{listed}"
