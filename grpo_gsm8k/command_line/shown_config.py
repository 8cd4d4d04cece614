"""The text of `--cfg job`: the composed and checked configuration as YAML."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import yaml

from grpo_gsm8k.command_line.loading import load_config
from grpo_gsm8k.config_keys import dotted_keys, unknown_key
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.rewards import validate_reward_weights
from grpo_gsm8k.orchestrator.overrides import ABSENT, value_at
from grpo_gsm8k.tracking.redaction import plain, redact

if TYPE_CHECKING:
    from collections.abc import Sequence


def config_text(words: Sequence[str], package: str | None) -> str:
    """Return the whole configuration, or the section `package`, without secrets. Raises UserError."""
    with contextlib.redirect_stdout(sys.stderr):  # notes about a resumed run are not YAML
        config = load_config(words)
    if config.command in ("sft", "policy_gradient"):
        validate_reward_weights(config.policy_gradient.rewards)
    values = redact(plain(config.model_dump(mode="json")))
    if package is None:
        return _yaml(values)
    part = value_at(values, package)
    if part is ABSENT:
        raise UserError(f"--package {unknown_key(package, {**dotted_keys(type(config)), **values})}")
    if not isinstance(part, dict):
        raise UserError(f"--package {package} is a key, not a section: give the section before its last dot")
    return f"# @package {package}\n{_yaml(part)}"


def _yaml(values: object) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
