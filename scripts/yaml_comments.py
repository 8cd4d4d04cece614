"""What a YAML file of conf/ says: its values by dotted key, and the comments beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class ConfFile:
    """`title`: the comment at the top, as one line. `bases`: the entries of Hydra's defaults list but `_self_`."""

    title: str
    values: dict[str, Any]
    comments: dict[str, str]
    bases: tuple[str | dict[str, str], ...]


def read_conf(path: Path) -> ConfFile:
    """Read one file. Keys are dotted down to what is no mapping; an empty mapping is a value."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    bases = tuple(entry for entry in content.pop("defaults", []) if entry != "_self_")
    return ConfFile(_title(text), flatten(content), _comments(text), bases)


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and value:
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _title(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(line for line in lines if not line.startswith("@package"))


def _comments(text: str) -> dict[str, str]:
    lines, ends = text.splitlines(), _ends_of_lines(text)
    found: dict[str, str] = {}

    def visit(node: yaml.Node | None, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            return
        for key, value in node.value:
            line = key.start_mark.line
            _, mark, comment = lines[line][ends[line] :].partition("#")
            if mark:
                found[f"{prefix}{key.value}"] = comment.strip()
            visit(value, f"{prefix}{key.value}.")

    visit(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found


def _ends_of_lines(text: str) -> dict[int, int]:
    """The column where the last token of each line ends: a "#" behind it begins a comment, one before it is text."""
    ends: dict[int, int] = {}
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if token.end_mark.column:
            ends[token.end_mark.line] = token.end_mark.column
    return ends
