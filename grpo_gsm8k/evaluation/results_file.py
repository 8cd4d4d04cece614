"""`eval_results.json`: the accuracies of an evaluation for other programs, with few and stable keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.files.aside import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.accuracy import Measured
    from grpo_gsm8k.evaluation.any_temperature import AnyTemperature
    from grpo_gsm8k.evaluation.results import SettingResult

EVAL_RESULTS = "eval_results.json"


def write_eval_results(folder: Path, config: Config, measured: Measured) -> None:
    """Write the file; its numbers are those of `summary.json` and of the printed table."""
    write_atomically(folder / EVAL_RESULTS, json.dumps(eval_results(config, measured), indent=2) + "\n")


def eval_results(config: Config, measured: Measured) -> dict[str, Any]:
    """Return the content of the file. Shares lie between 0 and 1, intervals are 95 % intervals over the examples."""
    file, prompt = config.eval.data_path, config.prompt
    return {
        "evaluation_set": str(file) if file else f"{config.data.folder}/{config.eval.split}",
        "examples": len(measured.item_ids),
        "method": f"{prompt.answer_kind} marked as {prompt.answer_format}, compared with the gold answer",
        "results": [_result(result) for result in measured.results],
        "over_temperatures": [_over_temperatures(found) for found in measured.any_temperature],
    }


def _result(result: SettingResult) -> dict[str, Any]:
    completions = result.items * result.samples
    return {
        "model": result.model,
        "prompting": result.prompting,
        "temperature": result.temperature,
        "accuracy": result.accuracy,
        "interval": [result.ci_low, result.ci_high],
        "correct": round(result.accuracy * completions),
        "completions": completions,
    }


def _over_temperatures(found: AnyTemperature) -> dict[str, Any]:
    return {
        "model": found.model,
        "prompting": found.prompting,
        "temperatures": list(found.temperatures),
        "completions_per_example": found.completions,
        "right_at_any_temperature": found.accuracy,
        "right_at_any_temperature_interval": [found.ci_low, found.ci_high],
        "majority": found.majority,
        "majority_interval": [found.majority_ci_low, found.majority_ci_high],
    }
