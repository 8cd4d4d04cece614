"""The tables of a report as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from grpo_gsm8k.config import LossType, PolicyGradientConfig
from grpo_gsm8k.report import collect, eval_tables, settings, words
from grpo_gsm8k.report.data_name import data_name
from grpo_gsm8k.report.material import KIND_NAMES, KINDS, AnswerSet, Material, Run, Table
from grpo_gsm8k.tracking.method import method_title, tuning_method


def methods(material: Material, usd_per_gpu_hour: float) -> Table:
    """Return the table of method, result and cost of each run."""
    what = ("Run", "Status", "Model", "Method", "Data", "Accuracy at start", "Accuracy at end")
    versus = (f"Difference to {material.baseline.name}",) if len(material.runs) > 1 else ()
    columns = (*what, *versus, "Tokens", "Wall time", "GPU-hours", "Cost")
    runs = material.runs
    rows = tuple(_method(material, run, usd_per_gpu_hour) for run in runs)
    note = (
        "In brackets: 95 % intervals, bootstrapped over the validation items. They do not include the variance between "
        "seeds: a single run per method is weak evidence of small differences. The accuracy at the end is that of the "
        "last validation, not of the best one."
    )
    if len(rows) > 1:
        note += (
            " Differences are paired: a bootstrap over the items that both runs answered, and McNemar's exact test, "
            "corrected for the number of runs (Holm). Noise means that the interval covers zero or the corrected p is "
            "above 0.05."
        )
    kept = [at for at in range(len(columns)) if any(row[at] != words.DASH for row in rows)]
    columns, rows = tuple(columns[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in rows)
    return Table("methods", "Methods and results", columns, rows, note if any(r.validations for r in runs) else "")


def findings(material: Material) -> tuple[str, ...]:
    """Summarize the report in sentences: start to end, against the baseline, and the best of each evaluation."""
    found = []
    for pair in material.pairs:
        if pair.family == collect.START:
            ends = f"{words.percent(pair.before.accuracy)} to {words.percent(pair.after.accuracy)}"
            found.append(f"{pair.after.run}, from start to end: {ends}; {words.describe_pair(pair)}.")
    for pair in material.pairs:
        if pair.family == collect.BASELINE:
            found.append(f"{pair.after.run} against {pair.before.run}, at the end: {words.describe_pair(pair)}.")
    for run in material.runs:
        if measured := [r for r in eval_tables.results_of(run) if r.get("accuracy") is not None]:
            best = max(measured, key=lambda result: float(result["accuracy"]))
            label = collect.eval_label(str(best["model"]), str(best["prompting"]), float(best["temperature"]))
            if len(measured) == 1:
                found.append(f"{run.name}: the accuracy is {words.percent(best['accuracy'])}, of {label}.")
                continue
            text = f"the highest of {len(measured)} accuracies is {words.percent(best['accuracy'])}, of {label}"
            found.append(f"{run.name}: {text}. As a maximum of several, it is likely biased upward.")
    return tuple(found)


def _method(material: Material, run: Run, usd_per_gpu_hour: float) -> tuple[str, ...]:
    first, last = (run.validations[0], run.validations[-1]) if run.validations else (None, None)
    split = f", {(run.config.get('eval') or {}).get('split', 'test')}" if run.command == "eval" else ""
    versus = (describe_difference(material, run),) if len(material.runs) > 1 else ()
    hours = gpu_hours(run)
    return (
        run.name,
        run_status(run),
        model_name(run),
        method_name(run),
        f"{data_name(run.config) or words.DASH}{split}",
        words.accuracy(first),
        words.accuracy(last),
        *versus,
        words.count(tokens_used(run)) if tokens_used(run) else words.DASH,
        words.duration(run.wall_seconds),
        "CPU" if hours == 0 else words.DASH if hours is None else f"{hours:.2f}",
        "CPU" if hours == 0 else words.DASH if hours is None else f"${hours * usd_per_gpu_hour:.2f}",
    )


def run_status(run: Run) -> str:
    """Return the status and the number of updates, such as `interrupted, 120 of 367 updates`."""
    found = run.summary.get("status")
    if run.command == "eval":
        return "done" if run.summary else "not finished"
    if found == "done":
        return f"done, {len(run.steps)} updates"
    total = run.summary.get("total_steps")
    of = f" of {total}" if total else ""
    return f"{found or 'not finished'}, {len(run.steps)}{of} updates"


def model_name(run: Run) -> str:
    """Return the start model of a run, or the models of an evaluation."""
    if run.command == "eval":
        return (
            ", ".join(dict.fromkeys(collect.short_model(str(r["model"])) for r in eval_tables.results_of(run)))
            or words.DASH
        )
    section = run.config.get("model") or {}
    name = collect.short_model(str(section.get("path", words.DASH)))
    return f"{name}, random weights" if section.get("init") == "random" else name


def method_name(run: Run) -> str:
    """Return loss and advantage, or supervised fine-tuning, and LoRA if enabled."""
    learner = run.config.get("learner") or {}
    if run.command == "eval":
        return "evaluation"
    parts = [_fine_tuning(run.config)] if run.command == "sft" else _policy_gradient(run.config)
    if (lora := learner.get("lora") or {}).get("enabled"):
        prefix = "" if learner.get("quantization", "none") == "none" else "Q"
        parts.append(f"{prefix}LoRA of rank {lora.get('rank')}")
    return ", ".join(parts)


def tuning_method_of(config: Mapping[str, Any]) -> str:
    """Return the method of a fine-tuning run; one from before `sft.loss` is `sft`."""
    section = config.get("sft") or {}
    return tuning_method(section.get("loss", "likelihood"), (section.get("dpo") or {}).get("loss", "sigmoid"))


def _fine_tuning(config: Mapping[str, Any]) -> str:
    method = tuning_method_of(config)
    return "supervised fine-tuning" if method == "sft" else f"{method_title(method)} on pairs"


def _policy_gradient(config: Mapping[str, Any]) -> list[str]:
    section = config.get("policy_gradient") or {}
    loss, advantage = section.get("loss_type"), section.get("advantage")
    if loss in get_args(LossType):  # otherwise from another version of the code
        advantage = PolicyGradientConfig.model_construct(loss_type=loss, advantage=advantage).advantage_name
    parts = [f"{loss or 'policy gradient'} / {advantage or 'default'}"]
    parts += [f"{section['ratio']} ratio"] if section.get("ratio", "token") != "token" else []
    parts += [section["reduction"]] if section.get("reduction") else []
    if (critic := (section.get("critic") or {}).get("kind", "none")) != "none":
        parts.append(f"{critic} critic")
    return [part.replace("_", " ") for part in parts]


def describe_difference(material: Material, run: Run) -> str:
    """Describe the difference between the run and the baseline."""
    if run is material.baseline:
        return "baseline"
    pair = material.pair(collect.BASELINE, run)
    return words.describe_pair(pair) if pair else "not compared: no items in common"


def tokens_used(run: Run) -> float:
    """Return the number of training tokens, or for an evaluation of sampled tokens."""
    if run.command == "eval":
        return math.fsum(float(line.get("tokens", 0)) for line in collect.predictions(run, []))
    name = "train/response_tokens" if run.command == "sft" else "rollout/tokens"
    return math.fsum(step.get(name) or 0 for step in run.steps)


def gpu_hours(run: Run) -> float | None:
    """Return wall time times number of GPUs: 0 on a CPU, None if unknown."""
    actor, learner = run.config.get("actor") or {}, run.config.get("learner") or {}
    if "device" not in actor:
        return None
    replicas = (run.config.get("eval") or {}).get("num_shards") if run.command == "eval" else actor.get("replicas")
    held: set[int] = set()
    if (first := _cuda(str(actor["device"]))) is not None:
        held |= set(range(first, first + (replicas or 1)))
    if run.command != "eval" and (own := _cuda(str(learner.get("device", "cpu")))) is not None:
        held.add(own)
    if not held:
        return 0.0
    return None if run.wall_seconds is None else len(held) * run.wall_seconds / 3600


def _cuda(device: str) -> int | None:
    return int(device.removeprefix("cuda:")) if device.startswith("cuda:") else None


def errors(shown: Sequence[AnswerSet]) -> Table:
    """Return the table of the kinds of answers by model."""
    rows = tuple((s.label, *(_share(s, kind) for kind in KINDS)) for s in shown)
    return Table("kinds", "Kinds of answers", ("Model", *(KIND_NAMES[kind] for kind in KINDS)), rows)


def _share(answers: AnswerSet, kind: str) -> str:
    total = sum(answers.kind_counts.values())
    return f"{answers.kind_counts.get(kind, 0)} ({words.percent(answers.kind_counts.get(kind, 0) / total)})"


def configurations(runs: Sequence[Run]) -> Table:
    """Return the table of settings that differ between runs, or of a single run from the defaults."""
    if len(runs) == 1:
        columns = ("Setting", "Value", "Default")
        note = "Omitted: settings that have their default, paths, and the settings of other commands."
        return Table("settings", "Settings", columns, tuple(settings.changed(runs[0])), note)
    names = tuple(run.name for run in runs)
    rows = tuple(settings.differences(runs))
    note = "Omitted: settings that are equal in all runs, paths, and the settings of other commands."
    return Table("settings", "Settings that differ", ("Setting", *names), rows, note)


def all_settings(runs: Sequence[Run]) -> Table:
    """Return the table of all settings of a single run; empty for several."""
    rows = tuple(settings.of_run(runs[0]).items()) if len(runs) == 1 else ()
    return Table("all-settings", f"All {len(rows)} settings", ("Setting", "Value"), rows)


def provenance(runs: Sequence[Run]) -> Table:
    """Return the table of code, libraries and machines."""
    return Table("made-with", "Made with", ("", *(run.name for run in runs)), tuple(settings.made_with(runs)))
