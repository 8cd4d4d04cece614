"""Values and comments of a YAML file in conf/, by dotted key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class ConfFile:
    """Content of one file; values and comments by dotted key."""

    title: str  # the comment at the top, as one line
    values: dict[str, Any]
    comments: dict[str, str]
    bases: tuple[str | dict[str, str], ...]  # entries of Hydra's defaults list except `_self_`


def read_conf(path: Path) -> ConfFile:
    """Read one file."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    bases = tuple(entry for entry in content.pop("defaults", []) if entry != "_self_")
    return ConfFile(_title(text), flatten(content), _comments(text), bases)


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values by dotted key; an empty mapping counts as a value."""
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
    """Return the column where the last token of each line ends: a "#" after it starts a comment, others are text."""
    ends: dict[int, int] = {}
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if token.end_mark.column:
            ends[token.end_mark.line] = token.end_mark.column
    return ends
