"""The configuration that a run has saved in its config.yaml, completed with today's defaults."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from pydantic import BaseModel

from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.parsing import yaml_value
from grpo_gsm8k.tracking.redaction import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.tracking.run_folder import RunFolder

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel contains the folder inside the package; in a checkout it is next to the package.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
RECIPE = "recipe"
END = "...\n"  # the end of a YAML document: a file without it may have been cut short
Values = dict[str, Any]


def compose_values(overrides: Sequence[str]) -> Values:
    """Compose conf/ with the overrides, unchecked. Raises HydraException or OmegaConfBaseException."""
    return copy.deepcopy(_composed(tuple(overrides)))


@functools.cache  # a composition takes a few tenths of a second, and resuming needs some of them twice
def _composed(overrides: tuple[str, ...]) -> Values:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=_at_scale(overrides))
    values: Values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return values


def recipes() -> list[str]:
    """Return the names for `recipe=`."""
    return sorted(path.stem for path in (CONF / RECIPE).glob("*.yaml"))


def _at_scale(overrides: Sequence[str]) -> list[str]:
    """Turn `recipe=NAME` into the recipe's file for the chosen scale. Raises UserError or HydraException."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = {one.key_or_group: one.value() for one in parsed if not one.is_delete()}
    name = chosen.get(RECIPE)
    if name is not None and name not in recipes():
        raise UserError(f"recipe={name} does not exist; recipes: {', '.join(recipes())}")
    words = [word for one, word in zip(parsed, overrides, strict=True) if one.key_or_group != RECIPE]
    if name is None:
        return words
    return [*words, f"{RECIPE}={'cpu/' if chosen.get('scale') == 'cpu' else ''}{name}"]


def read_saved(run: RunFolder) -> Values:
    """Return the content of config.yaml. Raises UserError for a file that is missing, damaged or cut short."""
    try:
        text = run.config_yaml.read_text(encoding="utf-8")
        values = yaml_value(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{run.config_yaml} cannot be read ({' '.join(str(error).split())}): restore the file"
        ) from None
    if not isinstance(values, dict) or not (text.endswith(END) or _ends_like_an_older_file(text, values)):
        raise UserError(f"{run.config_yaml} is cut short or damaged: restore the file")
    return values


def complete(run: RunFolder, saved: Values) -> Values:
    """Return saved values with a default for each key that an older version lacked, without unknown keys.

    A field's own default is what versions without the key did; a field without one gets today's default.

    Raises UserError if the run's command is unknown.
    """
    command = saved.get("command")
    if command not in get_args(Config.model_fields["command"].annotation):
        raise UserError(f"{run.config_yaml}: command={command} is unknown: restore the file")
    return _filled(saved, compose_values([f"command={command}"]), Config)


def unknown_keys(saved: Values, kind: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return the dotted keys of saved values that this version does not have."""
    names = field_names(kind)
    found = [f"{prefix}{key}" for key in saved if key not in names]
    for key, name in names.items():
        section = section_of(kind, name)
        if section is not None and isinstance(inner := saved.get(key), dict):
            found += unknown_keys(inner, section, f"{prefix}{key}.")
    return found


def read_config(run: RunFolder) -> Config:
    """Return the configuration of a run. Raises UserError that names the file if this version cannot read it."""
    values = complete(run, read_saved(run))
    try:
        return parse_config(values)
    except UserError as error:
        raise UserError(f"{run.config_yaml}: {error}") from None


def section_of(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the section that a field holds; None for a value, and for a map of free names."""
    inner = kind.model_fields[name].annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def field_names(kind: type[BaseModel]) -> dict[str, str]:
    """Return the field of each configuration key of a section; they differ for `doctor.json`."""
    return {field.alias or name: name for name, field in kind.model_fields.items()}


def _filled(saved: Values, defaults: Values, kind: type[BaseModel]) -> Values:
    filled: Values = {}
    for key, name in field_names(kind).items():
        section = section_of(kind, name)
        field = kind.model_fields[name]
        today = field.is_required() or section is not None
        default = defaults[key] if today else plain(field.get_default(call_default_factory=True))
        value = saved.get(key, default)
        filled[key] = _filled(value, defaults[key], section) if section and isinstance(value, dict) else value
    return filled


def _ends_like_an_older_file(text: str, values: Values) -> bool:
    """Whether a file from before the end mark is whole: it ended with the section `wandb`, and its last key."""
    last = values.get("wandb")
    newer = "tracker" in values  # a key that only files with an end mark have, and that comes before `wandb`
    return not newer and text.endswith("\n") and isinstance(last, dict) and "entity" in last
