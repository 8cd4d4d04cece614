"""The heading of a report in one line: method, data, result, time and price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from grpo_gsm8k.config import Advantage, Config, LossType, PolicyGradientConfig
from grpo_gsm8k.report import collect, eval_tables, tables, words
from grpo_gsm8k.report.data_name import data_name
from grpo_gsm8k.report.material import Run
from grpo_gsm8k.tracking.method import method_title, training_method
from grpo_gsm8k.tracking.summary import best_of

COMPLETE = ("done", "stopped early")
MAX_NAMED = 3  # methods or data sets; of more, their number is given


def headline(runs: Sequence[Run], usd_per_gpu_hour: float) -> str:
    """Return the heading: `GRPO on GSM8K: 46.3 → 87.3 %, 2 min 13 s, $0.02`; unknown parts are left out."""
    subject = subject_of(runs[0]) if len(runs) == 1 else _subject_of_all(runs)
    result = _result(runs[0]) if len(runs) == 1 else _result_of_all(runs)
    rest = [part for part in (result, _time(runs), price(runs, usd_per_gpu_hour)) if part]
    return f"{subject}: {', '.join(rest)}" if rest else subject


def subject_of(run: Run) -> str:
    """Return method and data set of a run, and how far it came if it is not complete."""
    if run.command == "eval":
        return _evaluated(run)
    name = f"{method_of(run)}{_on([run])}"
    return name if run.summary.get("status") in COMPLETE else f"{name} ({tables.run_status(run)})"


def method_of(run: Run) -> str:
    """Return the name of a run's method: `GRPO`, `PPO with LoRA`, `SFT`."""
    tuning = method_title(tables.tuning_method_of(run.config))
    name = {"sft": tuning, "policy_gradient": _policy_gradient(run.config)}.get(run.command, "Run")
    lora = ((run.config.get("learner") or {}).get("lora") or {}).get("enabled")
    return f"{name} with LoRA" if lora else name


def _policy_gradient(config: Mapping[str, Any]) -> str:
    """Return the name of the method; `Policy gradient` for settings that this version does not know."""
    section = config.get("policy_gradient") or {}
    loss, advantage = section.get("loss_type"), section.get("advantage")
    if loss not in get_args(LossType) or advantage not in (None, *get_args(Advantage)):
        return "Policy gradient"
    made = PolicyGradientConfig.model_construct(
        loss_type=loss,
        advantage=advantage,
        ratio=section.get("ratio", "token"),
        reduction=section.get("reduction"),
        active_sampling=section.get("active_sampling") or 0,
        cliprange_high=section.get("cliprange_high"),
    )
    return method_title(training_method(Config.model_construct(command="policy_gradient", policy_gradient=made)))


def price(runs: Sequence[Run], usd_per_gpu_hour: float) -> str:
    """Return the cost of all runs together; empty if one is unknown, or all were on a CPU."""
    hours = [tables.gpu_hours(run) for run in runs]
    known = [value for value in hours if value is not None]
    return words.dollars(math.fsum(known) * usd_per_gpu_hour) if any(known) and len(known) == len(hours) else ""


def change(first: float, last: float) -> str:
    """Return two accuracies in percent: `46.3 → 87.3 %`."""
    return f"{100 * first:.1f} → {words.percent(last)}"


def _evaluated(run: Run) -> str:
    split = (run.config.get("eval") or {}).get("split")
    part = f" ({split})" if split else ""
    models = list(dict.fromkeys(collect.short_model(str(r["model"])) for r in eval_tables.results_of(run)))
    what = models[0] if len(models) == 1 else f"Evaluation of {len(models)} models" if models else "Evaluation"
    return f"{what}{_on([run])}{part}{'' if run.summary else ' (not finished)'}"


def _result(run: Run) -> str:
    if run.command == "eval":
        return _highest([run])
    known = [dict(v) for v in run.validations if v.get("accuracy") is not None]
    if not known:
        return f"{len(run.steps)} updates"
    first, last, best = known[0], known[-1], best_of(known)
    if len(known) == 1:
        return f"{words.percent(first['accuracy'])} after {first['version']:.0f} updates"
    assert best is not None  # there are accuracies
    shown = change(first["accuracy"], last["accuracy"])
    higher = words.percent(best["accuracy"]) != words.percent(last["accuracy"])
    return f"{shown} (best {words.percent(best['accuracy'])})" if higher else shown


def _highest(runs: Sequence[Run]) -> str:
    found = [r["accuracy"] for run in runs for r in eval_tables.results_of(run) if r.get("accuracy") is not None]
    if not found:
        return ""
    return words.percent(found[0]) if len(found) == 1 else f"{words.percent(max(found))} at best, {len(found)} settings"


def _subject_of_all(runs: Sequence[Run]) -> str:
    trained = [run for run in runs if run.command != "eval"]
    methods = list(dict.fromkeys(method_of(run) for run in trained))
    named = _joined(methods) if len(methods) <= MAX_NAMED else f"{len(methods)} methods"
    parts = [f"{named}, {_count(len(trained), 'run')}"] if trained else []
    parts += [_count(len(runs) - len(trained), "evaluation")] if len(trained) < len(runs) else []
    return f"{' and '.join(parts)}{_on(runs)}"


def _result_of_all(runs: Sequence[Run]) -> str:
    ends = [run.validations[-1]["accuracy"] for run in runs if run.validations and run.validations[-1].get("accuracy")]
    if not ends:
        return _highest(runs)
    low, high = f"{100 * min(ends):.1f}", words.percent(max(ends))
    return f"{high} at the end" if f"{low} %" == high else f"{low} to {high} at the end"


def _time(runs: Sequence[Run]) -> str:
    known = [run.wall_seconds for run in runs if run.wall_seconds is not None]
    if not known or len(known) < len(runs):
        return ""
    return words.duration(math.fsum(known)) + (" in total" if len(runs) > 1 else "")


def _on(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs if (name := data_name(run.config))))
    return f" on {_joined(names) if len(names) <= MAX_NAMED else f'{len(names)} data sets'}" if names else ""


def _joined(names: Sequence[str]) -> str:
    """Return `A`, `A and B`, or `A, B and C`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
