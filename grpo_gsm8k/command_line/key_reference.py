"""Keys of the configuration with their values, from the types; for docs/configuration.md, `--help` and completion."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]


def settings(schema: Schema, part: Schema, prefix: str = "") -> dict[str, Schema]:
    """Return the schema of every dotted key below `part`."""
    found: dict[str, Schema] = {}
    for name, field in resolved(schema, part)["properties"].items():
        inner = resolved(schema, field)
        if "anyOf" in inner:
            inner = {**inner, "anyOf": [resolved(schema, choice) for choice in inner["anyOf"]]}
        if "properties" in inner:
            found |= settings(schema, inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


def values_of(field: Schema, mark: Callable[[str], str] = str) -> str:
    """Describe the values of a key from its JSON schema; `mark` formats literal values."""
    if "anyOf" in field:
        return " or ".join(values_of(choice, mark) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(mark(str(value)) for value in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "null":
            return mark("null")
        case "boolean":
            return f"{mark('true')}, {mark('false')}"
        case "integer" | "number" as kind:
            return f"{kind} {', '.join(_bounds(field))}".strip()
        case "string" if field.get("format") == "path":
            return "path"
        case "string":
            return f"text matching {mark(field['pattern'])}" if "pattern" in field else "text"
        case "array" if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])}: {values_of(field['prefixItems'][0], mark)}"
        case "array":
            least = f", at least {field['minItems']}" if "minItems" in field else ""
            return f"list{least}: {values_of(field['items'], mark)}"
        case "object":
            return f"map of names to {values_of(field['additionalProperties'], mark)}"
    raise ValueError(f"the schema {field} is not supported")


def shown_value(value: object) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, str) and value and value == value.strip() and "\n" not in value:
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(value)}]"
    return json.dumps(value, ensure_ascii=False)


def resolved(schema: Schema, field: Schema) -> Schema:
    """Return a field of the schema, with its reference followed."""
    found: Schema = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    return found


def _bounds(field: Schema) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return [f"{sign} {field[name]:.12g}" for name, sign in signs.items() if name in field]
