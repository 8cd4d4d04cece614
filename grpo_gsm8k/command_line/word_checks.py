"""Words that Hydra would accept, ignore or fail on with a traceback, refused before the composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser

from grpo_gsm8k.config import Config
from grpo_gsm8k.config_keys import dotted_keys, unknown_key
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.orchestrator.overrides import keys_set
from grpo_gsm8k.tracking.saved_config import CONF, RECIPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.override_parser.types import Override

HYDRA = "hydra"


def check_words(words: Sequence[str]) -> None:
    """Refuse settings of Hydra itself, and groups without exactly one name. Raises UserError, HydraException."""
    for word, override in zip(words, OverridesParser.create().parse_overrides(list(words)), strict=True):
        if override.key_or_group.replace("/", ".").partition(".")[0] == HYDRA:
            raise UserError(f"{word}: settings of Hydra have no effect here; see docs/command_line.md")
        if not override.key_or_group:
            raise UserError(f"{word}: not of the form key=value, such as command=data or learner.lr=1e-5")
        if override.key_or_group in groups():
            _check_group(word, override)
        if not override.is_delete() and isinstance(override.value(), dict):
            _check_names(word)


def groups() -> list[str]:
    """Return the names of the configuration groups, such as `policy_gradient` and `policy_gradient/off_policy`."""
    folders = {path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/**/*.yaml")}
    return sorted(folder for folder in folders if folder.isidentifier() or folder.replace("/", ".") in _sections())


def options(group: str) -> list[str]:
    """Return the names that `group=NAME` takes."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _check_names(word: str) -> None:
    """Raise UserError for a map with a key that its section does not have; Hydra's message names the section alone."""
    known = dotted_keys(Config)
    for key in keys_set([word]):
        if key not in known and any(name.startswith(f"{key.rpartition('.')[0]}.") for name in known):
            raise UserError(unknown_key(key, known))


def _sections() -> set[str]:
    """Return all sections, inner ones by their dotted names."""
    return {key.rpartition(".")[0] for key in dotted_keys(Config)}


def _check_group(word: str, override: Override) -> None:
    group = override.key_or_group
    names = ", ".join(options(group))
    if override.is_delete():
        raise UserError(f"{word}: a group cannot be left out: use {group}=NAME with one of {names}")
    if override.is_add() or override.is_force_add():
        raise UserError(f"{word}: {group} is set already: leave out the plus sign")
    if override.package is not None:
        raise UserError(f"{word}: a group cannot be moved: use {group}=NAME with one of {names}")
    if override.is_sweep_override():
        return  # explained by the composition
    value = override.value()
    sets_keys = isinstance(value, dict) and value and group.replace("/", ".") in _sections()
    if sets_keys or (value is None and group == RECIPE):
        return
    if isinstance(value, list | dict) or value is None or value == "":
        raise UserError(f"{word}: give {group} one name: {names}")
