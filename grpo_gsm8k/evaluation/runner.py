"""Shared parts of the suites of `command=eval`: run folder, resume, model folders, requests with retries."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.cluster.placement import open_placement
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.locks import try_lock
from grpo_gsm8k.models import context_length
from grpo_gsm8k.runtime.engines import Engines
from grpo_gsm8k.start_model import pin_model, start_folder
from grpo_gsm8k.terminal.count_progress import CountProgress
from grpo_gsm8k.terminal.next_commands import resumed_evaluation
from grpo_gsm8k.terminal.program_name import program
from grpo_gsm8k.terminal.safe_text import shortened
from grpo_gsm8k.terminal.stage import stage
from grpo_gsm8k.tracking import manifest, redaction, run_folder
from grpo_gsm8k.tracking.saved_config import complete, read_saved
from grpo_gsm8k.transport.protocol import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult

# Settings that determine the answers, so a resumed run must not change them: sections, and keys of `eval`.
SECTIONS = ("data", "model", "prompt")
KEYS = (
    *("eval_suites", "lm_eval_tasks", "lm_eval_shots", "lm_eval_max_gen_toks", "lm_eval_chat", "baseline"),
    *("suite", "model_path", "data_path", "input_path", "split", "limit"),
    *("prompting", "shots", "examples_file", "temperatures", "samples", "max_new_tokens"),
    *("top_p", "top_k", "min_p", "repetition_penalty", "stop"),
)
NAME_SIZE = 40  # characters of a model's name that a line of progress shows


def named_models(config: Config) -> dict[str, str]:
    """Return model paths by their reported names, the baseline first. Raises UserError for duplicates."""
    given, baseline = config.eval.model_path, config.eval.baseline
    paths = [config.model.path] if given is None else [given] if isinstance(given, str) else given
    if baseline is not None:
        paths = [baseline, *paths]
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"eval.model_path={paths}: give distinct models")
    return {path: path for path in paths}


def model_folder(config: Config, path: str) -> Path:
    """Return the local folder of a model. Raises UserError if it is missing or its context is too short."""
    init = config.model.init if path == config.model.path else "pretrained"
    model = config.model.model_copy(update={"path": path, "init": init})
    if path != config.model.path:
        model = model.model_copy(update={"revision": None})
    folder = start_folder(pin_model(config.model_copy(update={"model": model})))
    context = context_length(folder)
    if config.actor.max_model_len > context:
        raise UserError(
            f"actor.max_model_len={config.actor.max_model_len} exceeds the model's context of {context}: lower it"
        )
    return folder


@contextmanager
def open_run(config: Config, file: str) -> Iterator[RunFolder]:
    """Create a run folder, or reopen that of `eval.resume_from`; `latest` is the newest one that contains `file`.

    Raises UserError for a run that was started with other models, prompts or sampling settings, or is still running.
    """
    values = redaction.plain(config.model_dump(mode="json"))
    resumed = config.eval.resume_from
    if resumed is None:
        run = run_folder.create(config.artifacts, config.name, sweep=config.sweep)
    else:
        run = run_folder.find_with(config.artifacts, resumed, file)
    lock = try_lock(run.path)
    if lock is None:
        raise UserError(f"eval.resume_from={resumed}: {run.path} is in use by another process: wait for it, or stop it")
    try:
        if resumed is not None:
            _check_unchanged(run, values)
        manifest.write_config(run, values)
        manifest.write_manifest(run, values)
        yield run
    except (KeyboardInterrupt, LabError):
        again = resumed_evaluation(sys.argv[1:], run.path, program())
        print(f"the answers so far are kept; to continue:\n{again}", flush=True)
        raise
    finally:
        os.close(lock)


def run_requests(
    config: Config,
    model: str,
    folder: Path,
    logs: Path,
    requests: Sequence[GenerateGroup],
    take: Callable[[GroupResult | Failed], None],
) -> None:
    """Run all requests and call `take` with one result per request, in order of completion.

    A refused request is tried up to `eval.max_attempts` times before its `Failed` is passed on.
    """
    if not requests:
        return
    with (
        open_placement(config, logs) as placement,
        Engines(config, folder, logs, config.eval.num_shards, spawn=placement.spawn_actor) as engines,
    ):
        with stage(f"starting the engine for {shortened(model, NAME_SIZE)}"):
            engines.wait_until_ready()
        with CountProgress("questions", len(requests)) as progress:
            for result in results_with_retries(engines, requests, config.eval.max_attempts):
                take(result)
                progress.advance()


def results_with_retries(
    engines: Engines, requests: Sequence[GenerateGroup], max_attempts: int
) -> Iterator[GroupResult | Failed]:
    """Yield one result per request; a `Failed` only after `max_attempts` tries."""
    waiting = {request.request_id: request for request in requests}
    for attempt in range(1, max_attempts + 1):
        if not waiting:
            return
        for result in engines.run(list(waiting.values())):
            if isinstance(result, Failed) and attempt < max_attempts:
                continue
            del waiting[result.request_id]
            yield result


def _check_unchanged(run: RunFolder, values: Mapping[str, Any]) -> None:
    saved = complete(run, read_saved(run))  # with the old behavior for keys that the run's version did not have
    before, now = _determining_settings(saved), _determining_settings(redaction.redact(values))
    for key, value in now.items():
        if before[key] != value:
            raise UserError(
                f"{key}={value}, but {run.path.name} was started with {before[key]}: resume it with that value, or "
                "start without eval.resume_from"
            )


def _determining_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {f"{name}.{key}": value for name in SECTIONS for key, value in (values.get(name) or {}).items()}
    found |= {f"eval.{key}": value for key, value in (values.get("eval") or {}).items() if key in KEYS}
    return {**found, "seed": values.get("seed")}
