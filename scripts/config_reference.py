"""Writes docs/configuration.md out of the typed configuration and conf/: python -m scripts.config_reference"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from grpo_gsm8k.config import Config
from scripts.yaml_comments import ConfFile, read_conf

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "configuration.md"
Schema = dict[str, Any]

HEAD = """\
# Configuration reference

<!-- Written by `make docs-reference` out of grpo_gsm8k/config.py and conf/: change those, not this page. -->

Every key can be set on the command line as `KEY=VALUE`. `GROUP=NAME` exchanges a whole group, and `preset=NAME` sets
keys of several. The command line wins over the preset, the preset over the groups. Lists are written `KEY=[a,b]`; a key
that a map does not have yet is added with `+KEY=VALUE`. Any other unknown key is an error. The defaults are those of
`preset=two_gpu`; one with `${...}` takes over another key's value.
"""


def reference() -> str:
    """The whole page."""
    schema = Config.model_json_schema()
    main = read_conf(CONF / "config.yaml")
    chosen = {group: name for entry in main.bases if isinstance(entry, dict) for group, name in entry.items()}
    sections = [name for name in schema["properties"] if name in chosen]
    pages = [HEAD, _top_level(schema, main, sections)]
    pages += [_section(schema, group, chosen[group]) for group in sections]
    pages.append(_presets(chosen["preset"]))
    return "\n".join(pages)


def settings(schema: Schema, part: Schema, prefix: str = "") -> dict[str, Schema]:
    """What each dotted key below `part` may be."""
    found: dict[str, Schema] = {}
    for name, field in _resolved(schema, part)["properties"].items():
        inner = _resolved(schema, field)
        if "properties" in inner:
            found |= settings(schema, inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


def values_of(field: Schema) -> str:
    """What a key may be, in words, from its JSON schema."""
    if "anyOf" in field:
        return " or ".join(values_of(choice) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(_code(str(value)) for value in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return f"{kind} {', '.join(_bounds(field))}".strip()
        case "string" if field.get("format") == "path":
            return "path"
        case "string":
            return f"text matching {_code(field['pattern'])}" if "pattern" in field else "text"
        case "array" if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])}: {values_of(field['prefixItems'][0])}"
        case "array":
            least = f", at least {field['minItems']}" if "minItems" in field else ""
            return f"list{least}: {values_of(field['items'])}"
        case "object":
            return f"map of names to {values_of(field['additionalProperties'])}"
    raise ValueError(f"no words for the schema {field}")


def _top_level(schema: Schema, main: ConfFile, sections: list[str]) -> str:
    rows = {
        key: field for key, field in settings(schema, schema).items() if key.split(".")[0] not in sections
    }  # what conf/config.yaml holds itself
    return "\n".join(["## Top level", "", *_table(rows, main, ""), ""])


def _section(schema: Schema, group: str, default: str) -> str:
    part = _resolved(schema, schema["properties"][group])
    files = {path.stem: read_conf(path) for path in sorted((CONF / group).glob("*.yaml"))}
    lines = [f"## {group}", "", part["description"].replace("\n", " "), ""]
    if len(files) > 1:
        lines += [f"Default: `{group}={default}`.", ""]
    if files[default].title:
        lines += [files[default].title, ""]
    lines += [*_table(settings(schema, part), files[default], f"{group}."), ""]
    if len(files) > 1:
        lines += _options(group, {name: file for name, file in files.items() if name != default})
    return "\n".join(lines)


def _table(rows: dict[str, Schema], file: ConfFile, prefix: str) -> list[str]:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    parent = ""
    for key, field in rows.items():
        above, parent = parent, key.rpartition(".")[0]
        if parent != above and parent in file.comments:
            lines.append(f"| `{prefix}{parent}` | | | {_text(file.comments[parent])} |")
        comment = file.comments.get(key, "")
        said = "" if comment == ", ".join(map(str, field.get("enum", []))) else _text(comment)
        lines.append(f"| `{prefix}{key}` | {values_of(field)} | {_default(_value(file, key))} | {said} |")
    return lines


def _value(file: ConfFile, key: str) -> object:
    """The value of a key; a map's entries were flattened with the rest."""
    entries = {name.removeprefix(f"{key}."): value for name, value in file.values.items() if name.startswith(f"{key}.")}
    return entries or file.values[key]


def _options(group: str, files: dict[str, ConfFile]) -> list[str]:
    lines = ["| instead | what it is | what it sets |", "|---|---|---|"]
    for name, file in files.items():
        sets = [f"as `{group}={base}`" for base in file.bases if isinstance(base, str)]
        sets += [_set(key, value, file.comments.get(key)) for key, value in file.values.items()]
        lines.append(f"| `{group}={name}` | {_text(file.title)} | {'; '.join(sets)} |")
    return [*lines, ""]


def _presets(default: str) -> str:
    lines = ["## Presets", "", f"Default: `preset={default}`.", ""]
    for path in sorted((CONF / "preset").glob("*.yaml")):
        file = read_conf(path)
        lines += [f"### preset={path.stem}", "", _text(file.title), ""]
        bases = [(key, name) for base in file.bases if isinstance(base, dict) for key, name in base.items()]
        lines += [f"- {_code(key.removeprefix('override /') + '=' + name)}" for key, name in bases]
        lines += [f"- {_set(key, value, file.comments.get(key))}" for key, value in file.values.items()]
        lines.append("")
    return "\n".join(lines)


def _bounds(field: Schema) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return [f"{sign} {field[name]:g}" for name, sign in signs.items() if name in field]


def _set(key: str, value: object, comment: str | None) -> str:
    return _code(f"{key}={_yaml(value)}") + (f" ({_text(comment)})" if comment else "")


def _default(value: object) -> str:
    return "required" if value == "???" else _code(_yaml(value))


def _yaml(value: object) -> str:
    if isinstance(value, str) and value and value == value.strip() and "\n" not in value:
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(value)}]"
    return json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    """Code inside a table: a bar would end the cell, and Markdown's readers disagree about escapes of it."""
    if "|" in text or "`" in text:
        return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"
    return f"`{text}`"


def _text(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "\\*")


def _resolved(schema: Schema, field: Schema) -> Schema:
    found: Schema = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    return found


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
