"""`eval_results.json`: the accuracies of an evaluation with few keys that stay the same, for scripts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.accuracy import Measured
    from grpo_gsm8k.evaluation.any_temperature import AnyTemperature
    from grpo_gsm8k.evaluation.results import SettingResult

EVAL_RESULTS = "eval_results.json"


def eval_results(config: Config, measured: Measured) -> dict[str, Any]:
    """Return the content of the file; the numbers are those of `summary.json`."""
    prompt = config.prompt
    return {
        "evaluation_set": {
            "data": str(config.eval.data_path or config.data.folder),
            "split": None if config.eval.data_path else config.eval.split,
            "limit": config.eval.limit,
            "seed": config.seed,
            "examples": len(measured.item_ids),
            "item_ids": measured.item_ids,
        },
        "method": {
            "prompt": prompt.name,
            "answer_format": str(prompt.answer_format),
            "answer_kind": str(prompt.answer_kind),
            "shots": config.eval.shots,
            "examples_file": None if config.eval.examples_file is None else str(config.eval.examples_file),
            "max_new_tokens": config.eval.max_new_tokens,
        },
        "results": [_of_setting(result) for result in measured.results],
        "over_temperatures": [_over_temperatures(result) for result in measured.any_temperature],
    }


def _of_setting(result: SettingResult) -> dict[str, Any]:
    """Return the numbers of one model, way and temperature. `correct` counts completions, over all samples."""
    return {
        "model": result.model,
        "prompting": result.prompting,
        "temperature": result.temperature,
        "examples": result.items,
        "samples": result.samples,
        "correct": round(result.accuracy * result.items * result.samples),
        "accuracy": result.accuracy,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "accuracy_punctuation_free": result.accuracy_punctuation_free,
        "pass_at": result.pass_at,
        "majority_at": result.majority_at,
    }


def _over_temperatures(result: AnyTemperature) -> dict[str, Any]:
    """Return the numbers of one model and way over all of its temperatures; counts are of problems."""
    return {
        "model": result.model,
        "prompting": result.prompting,
        "temperatures": list(result.temperatures),
        "examples": result.items,
        "completions": result.completions,
        "any_temperature": _share(result.accuracy, result.ci_low, result.ci_high, result.items),
        "any_temperature_punctuation_free": _share(
            result.accuracy_punctuation_free,
            result.punctuation_free_ci_low,
            result.punctuation_free_ci_high,
            result.items,
        ),
        "majority": _share(result.majority, result.majority_ci_low, result.majority_ci_high, result.items),
    }


def _share(accuracy: float, low: float, high: float, items: int) -> dict[str, float]:
    return {"correct": round(accuracy * items), "accuracy": accuracy, "ci_low": low, "ci_high": high}
