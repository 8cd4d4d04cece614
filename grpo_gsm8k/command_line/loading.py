"""Composing and checking the configuration that the words of a command line describe."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from grpo_gsm8k.command_line.word_checks import check_words, groups, options
from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.config_keys import dotted_keys, explain, keep_texts
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.orchestrator.overrides import compose_arguments, keys_set
from grpo_gsm8k.orchestrator.resume import resumed_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.tracking.saved_config import Values

WITH_RESUME = ("sft", "policy_gradient", "eval")


def load_config(arguments: Sequence[str]) -> Config:
    """Compose and check the configuration; a resumed run's own is the base. Raises UserError that names the key."""
    with explained_errors():
        check_words(arguments)
        words = kept_texts(arguments)
        values = resumed_values(words) or compose_arguments(words)
        if values["artifacts"] == "":
            raise UserError("artifacts is empty: set artifacts=FOLDER")
        config = parse_config(values)
        _check_sweep(config, words)
        _check_determinism(values, words)
        if config.command == "scale" and "actor.replicas" not in keys_set(words):
            raise UserError("command=scale needs actor.replicas=N, the number of engines that the run is to have")
        return config


def composed_values(arguments: Sequence[str]) -> Values:
    """Compose the configuration without checking its values. Raises UserError that names the key."""
    with explained_errors():
        check_words(arguments)
        return compose_arguments(kept_texts(arguments))


def kept_texts(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with quoted values for text keys, see `keep_texts`."""
    return keep_texts(arguments, dotted_keys(Config), groups())


@contextlib.contextmanager
def explained_errors() -> Iterator[None]:
    """Context manager that turns errors of Hydra and OmegaConf into a UserError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, dotted_keys(Config), groups())) from None


def presets() -> list[str]:
    """Return the names for `preset=`."""
    return options("preset")


def _check_determinism(values: Values, words: Sequence[str]) -> None:
    told = "learner.deterministic" in keys_set(words) and not values["learner"]["deterministic"]
    if told and values["deterministic"] is True:
        raise UserError("learner.deterministic=false contradicts deterministic=true, which sets it: leave it out")


def _check_sweep(config: Config, words: Sequence[str]) -> None:
    resumes = config.command in WITH_RESUME and getattr(config, config.command).resume_from is not None
    if resumes and "sweep" in keys_set(words):
        raise UserError(
            f"sweep has no effect with {config.command}.resume_from: a resumed run stays in its folder; leave sweep out"
        )
