"""`command=eval`: our accuracy, lm-eval's tasks, or both, of one model or several, and what they lost or won."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import EXIT_REGRESSION
from grpo_gsm8k.evaluation import accuracy
from grpo_gsm8k.evaluation.harness import scores
from grpo_gsm8k.evaluation.harness.tasks import task_list, task_manager, wants_gsm8k
from grpo_gsm8k.evaluation.runner import model_folder, named_models, open_run
from grpo_gsm8k.files.aside import write_atomically

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.accuracy import Measured
    from grpo_gsm8k.tracking.run_folder import RunFolder


def evaluate_models(config: Config) -> int:
    """Evaluate all models; returns 0, or 3 for a regression if `eval.fail_on_regression`. Raises UserError."""
    from grpo_gsm8k.evaluation.harness.run_harness import LM_EVAL, run_harness
    from grpo_gsm8k.report.write_report import report_of_run

    folders = {name: model_folder(config, path) for name, path in named_models(config).items()}
    tasks = task_list(config.eval)
    manager = task_manager(tasks) if tasks.names else None  # a wrong name costs no engine start
    plan = accuracy.plan_evaluation(config, folders) if wants_gsm8k(config.eval) else None
    with open_run(config, accuracy.FILE if plan else LM_EVAL) as run:
        started = time.monotonic()
        measured = accuracy.measure(config, plan, folders, run) if plan else None
        found = run_harness(config, tasks, manager, folders, run) if tasks.names else []
        # Of this start: what a resumed evaluation did before is not in it.
        lost = write_results(config, run, measured, found, time.monotonic() - started)
        print(f"report      {report_of_run(run.path)}")
    return EXIT_REGRESSION if lost and config.eval.fail_on_regression else 0


def write_results(
    config: Config, run: RunFolder, measured: Measured | None, found: list[scores.Score], seconds: float
) -> list[str]:
    """Write summary.json, print what it says; returns what became worse than the baseline by too much, in words."""
    baseline, threshold = config.eval.baseline, config.eval.regression_threshold
    changes = scores.changes_from_baseline(found, baseline, threshold) if baseline else []
    lost = [f"{c.task} {c.metric} of {c.model}: {c.difference:+.4f} ({c.verdict})" for c in changes if c.regression]
    summary: dict[str, Any] = {"kind": "eval", "wall_seconds": seconds}
    if measured is not None:
        summary |= asdict(measured)
        lost += [
            f"accuracy of {c.b} ({c.prompting}, temperature {c.temperature:g}): {c.difference:+.1%} ({c.verdict})"
            for c in measured.comparisons
            if c.a == baseline and c.difference < -threshold
        ]
        print(accuracy.format_accuracy(measured))
    if found:
        summary["lm_eval"] = {"scores": [asdict(s) for s in found], "changes": [asdict(c) for c in changes]}
        print(scores.scores_table(found, changes))
    summary["regressions"] = lost
    write_atomically(run.summary_json, json.dumps(summary, indent=2) + "\n")
    for line in lost:
        print(f"REGRESSION of more than eval.regression_threshold={threshold:g}: {line}")
    print(f"run folder  {run.path}")
    return lost
