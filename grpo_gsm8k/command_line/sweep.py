"""Sweeps (`--multirun`): one command after another, one for each combination of swept values."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep

from grpo_gsm8k.command_line.loading import explained_errors, kept_texts, load_config
from grpo_gsm8k.commands.child_command import run_command
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.tracking import manifest, run_folder
from grpo_gsm8k.tracking.redaction import redact_arguments
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.saved_config import CONF

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra.core.override_parser.types import Override

SWEPT_NAME = 64  # the length of a run's name
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
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


def run_sweep(words: Sequence[str], only: int | None) -> int:
    """Run all jobs, or job `only`; returns 0, or the exit code of the first job that failed.

    A failed job does not keep the others from running, but a signal ends the sweep. Raises UserError before the first
    job starts if any of them is invalid.
    """
    jobs, folder = plan_sweep(words, f"{datetime.now():%Y%m%d-%H%M%S}")
    if only is not None:
        return _run_only(jobs, only, words)
    done = _finished_jobs(folder)
    codes: list[int] = []
    for number, job in enumerate(jobs):
        if _recorded(job.words) in done:
            print(f"\n== job {number} of {len(jobs)}: {job.title}: done before, skipped", flush=True)
            continue
        codes.append(_run_job(job, number, len(jobs)))
        if codes[-1] >= 128:  # interrupted
            break
    failed = [code for code in codes if code]
    print(f"\n== sweep: {len(codes) - len(failed)} jobs done, {len(failed)} failed: {folder}", flush=True)
    return failed[0] if failed else 0


def plan_sweep(words: Sequence[str], default_name: str) -> tuple[list[Job], Path]:
    """Return the jobs, all of them checked, and the folder of their runs. Raises UserError."""
    with explained_errors():
        jobs = [_named(job, words, default_name) for job in split_jobs(words)]
    configs = []
    for number, job in enumerate(jobs):
        try:
            configs.append(load_config(job.words))
        except UserError as error:
            raise UserError(f"job {number} of the sweep ({job.title}): {error}") from None
    folders = {run_folder.sweep_folder(config.artifacts, str(config.sweep)) for config in configs}
    if len(folders) > 1:
        raise UserError("a sweep has one folder: do not sweep over artifacts or sweep")
    return jobs, folders.pop()


def split_jobs(words: Sequence[str]) -> list[Job]:
    """Return the combinations of the swept values; the last one varies fastest. Raises HydraException, UserError."""
    with initialize_config_dir(str(CONF), version_base="1.3"):  # glob() looks up the options of a group
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        given = parser.parse_overrides(list(words))
        choices: dict[str, list[str]] = {}
        for word, override in zip(words, given, strict=True):
            choices.pop(key := override.get_key_element(), None)  # the last word about a key counts
            choices[key] = _values(word, override) if override.is_sweep_override() else [word]
    swept = {override.get_key_element() for override in given if override.is_sweep_override()}
    return [
        Job(tuple(word for key, word in zip(choices, combined, strict=True) if key in swept), tuple(combined))
        for combined in itertools.product(*choices.values())
    ]


def _values(word: str, override: Override) -> list[str]:
    """Return `key=value` for each value of a swept override, with the text of a plain list unchanged."""
    key, found = override.get_key_element(), override.value()
    if override.key_or_group == "sweep":
        raise UserError("a sweep has one folder: do not sweep over artifacts or sweep")
    if not override.is_discrete_sweep():
        raise UserError(f"{word}: an interval has no list of values: use range(start,stop,step) or a,b,c")
    text = word.partition("=")[2]
    if isinstance(found, ChoiceSweep) and found.simple_form and _PLAIN_LIST.fullmatch(text):
        return [f"{key}={part.strip()}" for part in text.split(",")]
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if values != kept_texts(values):
        raise UserError(f"{word}: write the values of this key as a plain list: {override.key_or_group}=a,b,c")
    if not values:
        raise UserError(f"{word}: no values to sweep over")
    return values


def _named(job: Job, words: Sequence[str], sweep: str) -> Job:
    """Return the job with the folder of the sweep, and a run name made of the swept values, unless they are given."""
    given = {word.lstrip("+").partition("=")[0] for word in words}
    resumes = [key for key in given if key.endswith(".resume_from")]
    if resumes:
        raise UserError(f"{resumes[0]}: a sweep starts new runs; resume one of its runs without --multirun")
    added = [] if "sweep" in given else [f"sweep={sweep}"]
    if job.swept and "name" not in given:
        parts = [word.lstrip("+").partition("=") for word in job.swept]
        text = "_".join(f"{key.rpartition('.')[2]}_{value}" for key, _, value in parts)
        added.append(f"name={_NOT_IN_NAMES.sub('_', text).strip('_.-')[:SWEPT_NAME]}")
    return Job(job.swept, (*job.words, *added))


def _run_only(jobs: Sequence[Job], number: int, words: Sequence[str]) -> int:
    if number not in range(len(jobs)):
        raise UserError(f"--job {number}: the sweep has the jobs 0 to {len(jobs) - 1}")
    if not any(word.startswith("sweep=") for word in words):
        raise UserError("--job needs sweep=NAME, the folder that it shares with the other jobs")
    return _run_job(jobs[number], number, len(jobs))


def _run_job(job: Job, number: int, total: int) -> int:
    print(f"\n== job {number} of {total}: {job.title}", flush=True)
    started = time.monotonic()
    result = run_command(job.words)
    where = f": {result.runs[-1]}" if result.runs else ""
    print(f"== job {number}: exit code {result.code} after {duration(time.monotonic() - started)}{where}", flush=True)
    return result.code


def _recorded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(redact_arguments(list(words)))


def _finished_jobs(folder: Path) -> set[tuple[str, ...]]:
    """Return the words of the runs in a sweep folder that are complete."""
    found = set()
    for path in run_folder.all_folders(folder):
        run = RunFolder(path)
        started = manifest.read_manifest(run) or {}
        if run.summary_json.is_file() and read_json(run.summary_json).get("status", "done") == "done":
            found.add(tuple(started.get("command_line", [])[1:]))
    return found
