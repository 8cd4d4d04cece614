"""The jobs of a sweep (`--multirun`): one for each combination of swept values, checked before any of them starts."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

from grpo_gsm8k.command_line.loading import explained_errors, kept_texts, load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.saved_config import CONF

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra.core.override_parser.types import Override

    from grpo_gsm8k.config import Config

_LENGTH = 64 - len("_policy_gradient")  # a run's name has at most 64 characters
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")
_PLAIN_LIST = re.compile(r"[^'\"\\\[\](){}]*")


@dataclass(frozen=True, slots=True)
class Job:
    """One command of a sweep: its swept values as `key=value`, and all of its words."""

    swept: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def title(self) -> str:
        """The swept values on one line."""
        return " ".join(self.swept) or "no swept values"


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs, their configurations, and the folder of their runs."""

    jobs: tuple[Job, ...]
    configs: tuple[Config, ...]
    folder: Path


def plan_sweep(words: Sequence[str], default_name: str) -> Plan:
    """Return the jobs, all of them checked. Raises UserError."""
    _refuse_resuming(words)
    with explained_errors():
        jobs = _named(split_jobs(words), words, default_name)
    configs = []
    for number, job in enumerate(jobs):
        try:
            configs.append(load_config(job.words))
        except UserError as error:
            where = f"job {number} of the sweep ({job.title}): " if job.swept else ""
            raise UserError(f"{where}{error}") from None
    folders = {run_folder.sweep_folder(config.artifacts, str(config.sweep)) for config in configs}
    if len(folders) > 1:
        raise UserError("a sweep has one folder: do not sweep over artifacts or sweep")
    return Plan(tuple(jobs), tuple(configs), folders.pop())


def split_jobs(words: Sequence[str]) -> list[Job]:
    """Return the combinations of the swept values; the last one varies fastest. Raises HydraException, UserError."""
    with initialize_config_dir(str(CONF), version_base="1.3"):  # glob() looks up the options of a group
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        given = parser.parse_overrides(list(words))
        choices: dict[str, list[str]] = {}
        for word, override in zip(words, given, strict=True):
            choices.pop(key := override.get_key_element(), None)  # the last word about a key counts
            choices[key] = _values(word, override) if override.is_sweep_override() else [word]
    swept = {o.get_key_element(): o.is_sweep_override() for o in given}
    return [
        Job(tuple(word for key, word in zip(choices, combined, strict=True) if swept[key]), tuple(combined))
        for combined in itertools.product(*choices.values())
    ]


def _values(word: str, override: Override) -> list[str]:
    """Return `key=value` for each value of a swept override, with the text of a plain list unchanged."""
    key, found = override.get_key_element(), override.value()
    if override.key_or_group == "sweep":
        raise UserError("a sweep has one folder: do not sweep over artifacts or sweep")
    if not override.is_discrete_sweep():
        raise UserError(f"{word}: an interval has no list of values: use range(start,stop,step) or a,b,c")
    if isinstance(found, ChoiceSweep | RangeSweep) and found.shuffle:
        raise UserError(f"{word}: another order each time; write the values in the order that you want")
    text = word.partition("=")[2]
    if isinstance(found, ChoiceSweep) and found.simple_form and _PLAIN_LIST.fullmatch(text):
        values = [f"{key}={part.strip()}" for part in text.split(",")]
    else:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if values != kept_texts(values):
            raise UserError(f"{word}: write the values of this key as a plain list: {override.key_or_group}=a,b,c")
    if not values:
        raise UserError(f"{word}: no values to sweep over")
    if len(set(values)) < len(values):
        raise UserError(f"{word}: a value is given twice; leave it out")
    return values


def _refuse_resuming(words: Sequence[str]) -> None:
    for key in (word.lstrip("+").partition("=")[0] for word in words):
        if key.endswith(".resume_from"):
            raise UserError(f"{key}: a sweep starts new runs; resume one of its runs without --multirun")


def _named(jobs: Sequence[Job], words: Sequence[str], sweep: str) -> list[Job]:
    """Return the jobs with the folder of the sweep, and run names made of the swept values, unless they are given."""
    given = {word.lstrip("+").partition("=")[0] for word in words}
    added = [] if "sweep" in given else [f"sweep={sweep}"]
    names = [None] * len(jobs) if "name" in given or len(jobs) == 1 else _names(jobs)
    return [
        replace(job, words=(*job.words, *added, *([] if name is None else [f"name={name}"])))
        for job, name in zip(jobs, names, strict=True)
    ]


def _names(jobs: Sequence[Job]) -> list[str]:
    """Return a run name for each job; names that are equal when shortened get the number of the job.

    The stages of a pipeline are runs of one job, and add their command.
    """
    names = []
    for job in jobs:
        pairs = [word.lstrip("+").partition("=") for word in job.swept]
        parts = [f"{key.rpartition('.')[2]}_{_NOT_IN_NAMES.sub('_', value).strip('_')}" for key, _, value in pairs]
        names.append("_".join(parts)[:_LENGTH].rstrip("_.-"))
    unique = [
        name if names.count(name) == 1 else f"{name[: _LENGTH - len(str(number)) - 1]}_{number}"
        for number, name in enumerate(names)
    ]
    return [
        f"{name}_${{command}}" if "command=pipeline" in job.words else name
        for job, name in zip(jobs, unique, strict=True)
    ]
