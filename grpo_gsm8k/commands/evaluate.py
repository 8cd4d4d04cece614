"""`command=eval`: accuracy on our problems, lm-eval tasks, or both, for one or several models, with comparisons."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import EXIT_REGRESSION, UserError
from grpo_gsm8k.evaluation import accuracy
from grpo_gsm8k.evaluation.eval_results import EVAL_RESULTS, eval_results
from grpo_gsm8k.evaluation.harness import scores
from grpo_gsm8k.evaluation.harness.tasks import task_list, task_manager, wants_gsm8k
from grpo_gsm8k.evaluation.predictions import FILE
from grpo_gsm8k.evaluation.requests import sampling_settings
from grpo_gsm8k.evaluation.runner import model_folder, named_models, open_run
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.checksums import digest_weights
from grpo_gsm8k.terminal.stage import stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.accuracy import Measured
    from grpo_gsm8k.tracking.run_folder import RunFolder


def evaluate(config: Config) -> int:
    """Run the suite that `eval.suite` names; returns the exit code. Raises UserError."""
    if config.eval.suite == "generate":
        from grpo_gsm8k.evaluation.generate import generate

        return generate(config)
    return evaluate_models(config)


def evaluate_models(config: Config) -> int:
    """Evaluate all models; returns 0, or 3 for a regression if `eval.fail_on_regression`. Raises UserError."""
    from grpo_gsm8k.evaluation.harness.run_harness import LM_EVAL, run_harness
    from grpo_gsm8k.report.write_report import report_of_run

    folders = {name: model_folder(config, path) for name, path in named_models(config).items()}
    tasks = task_list(config.eval)
    _check_settings_of_suites(config, bool(tasks.names))
    manager = task_manager(tasks) if tasks.names else None  # unknown names fail before an engine starts
    plan = accuracy.plan_evaluation(config, folders) if wants_gsm8k(config.eval) else None
    with open_run(config, FILE if plan else LM_EVAL) as run:
        started = time.monotonic()
        measured = accuracy.measure(config, plan, folders, run) if plan else None
        found = run_harness(config, tasks, manager, folders, run) if tasks.names else []
        seconds = time.monotonic() - started  # this start only, without the time before a resume
        regressions = write_results(config, run, measured, found, seconds, trained_weights(config, folders))
        with stage("writing the report"):
            report = report_of_run(run.path)
        print(f"report      {report.absolute()}")
    return EXIT_REGRESSION if regressions and config.eval.fail_on_regression else 0


def _check_settings_of_suites(config: Config, lm_eval: bool) -> None:
    """Raise UserError for settings that lm-eval tasks cannot follow."""
    if lm_eval and isinstance(config.eval.limit, str):
        raise UserError(f"eval.limit={config.eval.limit}: lm-eval tasks take the first problems only: set eval.limit=N")
    if config.eval.examples_file is not None and not wants_gsm8k(config.eval):
        raise UserError(f"eval.examples_file has no effect with eval.eval_suites={config.eval.eval_suites}: drop it")


def trained_weights(config: Config, folders: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return the digests of the evaluated weights that runs made; a model card lists evaluations by them."""
    runs = config.artifacts.resolve()
    return {name: digest_weights(folder) for name, folder in folders.items() if folder.resolve().is_relative_to(runs)}


def write_results(
    config: Config,
    run: RunFolder,
    measured: Measured | None,
    found: list[scores.Score],
    seconds: float,
    weights: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """Write and print the summary; returns one line for each regression of more than the threshold."""
    baseline, threshold = config.eval.baseline, config.eval.regression_threshold
    changes = scores.changes_from_baseline(found, baseline, threshold) if baseline else []
    regressions = [
        f"{c.task} {c.metric} of {c.model}: {c.difference:+.4f} ({c.verdict})" for c in changes if c.regression
    ]
    summary: dict[str, Any] = {"kind": "eval", "wall_seconds": seconds, "weights": dict(weights or {})}
    if measured is not None:
        summary |= {**asdict(measured), "sampling": sampling_settings(config)}
        regressions += [
            f"accuracy of {c.b} ({c.prompting}, temperature {c.temperature:g}): {c.difference:+.1%} ({c.verdict})"
            for c in measured.comparisons
            if c.a == baseline and c.difference < -threshold
        ]
        print(accuracy.format_accuracy(measured))
    if found:
        summary["lm_eval"] = {"scores": [asdict(s) for s in found], "changes": [asdict(c) for c in changes]}
        print(scores.scores_table(found, changes))
    summary["regressions"] = regressions
    short = (eval_results(config, measured) if measured else {}) | {"lm_eval": [asdict(s) for s in found]}
    write_atomically(run.path / EVAL_RESULTS, json.dumps(short, indent=2) + "\n")
    write_atomically(run.summary_json, json.dumps(summary, indent=2) + "\n")
    for line in regressions:
        print(f"REGRESSION of more than eval.regression_threshold={threshold:g}: {line}")
    print(f"run folder  {run.path.absolute()}")
    return regressions
