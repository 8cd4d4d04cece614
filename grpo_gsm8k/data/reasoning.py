"""Problems with numeric answers, generated offline by reasoning-gym from a seed."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.gold import ENGLISH, gold_of_row
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.problem import Problem

if TYPE_CHECKING:
    from grpo_gsm8k.config import DataConfig

_DRAWS_PER_PROBLEM = 20  # give up when fewer than one draw in 20 is a question not seen before


def import_reasoning_gym() -> Any:
    """Import reasoning_gym even if `pycosat` is missing.

    The package imports all its generators, and a puzzle that no command uses imports `pycosat`, which is distributed as
    C source only and cannot be installed without a compiler. An empty module replaces it during the import.
    """
    missing = "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None
    if missing:
        sys.modules["pycosat"] = types.ModuleType("pycosat")
    try:
        import reasoning_gym
    finally:
        if missing:
            del sys.modules["pycosat"]
    return reasoning_gym


def load_reasoning_gym(config: DataConfig) -> tuple[list[Problem], list[Problem]]:
    """Generate `train_size` problems (validation included) and `test_size` others; all questions are distinct.

    Raises UserError for an unknown generator, invalid parameters, non-numeric answers, and parameters that allow too
    few distinct questions.
    """
    wanted = config.train_size + int(config.test_size)
    items = _distinct_items(config, wanted)
    train = [_problem(config, item, f"train-{i:05d}") for i, item in enumerate(items[: config.train_size])]
    test = [_problem(config, item, f"test-{i:05d}") for i, item in enumerate(items[config.train_size :])]
    return train, test


def _distinct_items(config: DataConfig, wanted: int) -> list[dict[str, Any]]:
    draws = wanted * _DRAWS_PER_PROBLEM
    dataset = _create(config, size=draws)
    found: dict[str, dict[str, Any]] = {}
    for index in range(draws):
        item = dataset[index]
        found.setdefault(item["question"], item)
        if len(found) == wanted:
            return list(found.values())
    raise UserError(
        f"reasoning_gym {config.name} has only about {len(found)} distinct questions with these data.params, but "
        f"{wanted} are configured: lower data.train_size or data.test_size, or widen data.params"
    )


def _create(config: DataConfig, size: int) -> Any:
    reasoning_gym = import_reasoning_gym()
    try:
        return reasoning_gym.create_dataset(config.name, size=size, seed=config.seed, **config.params)
    except (ValueError, TypeError, AssertionError) as error:  # its configs validate with assert
        raise UserError(f"reasoning_gym rejects data.name={config.name} data.params={config.params}: {error}") from None


def _problem(config: DataConfig, item: dict[str, Any], problem_id: str) -> Problem:
    try:
        gold = gold_of_row(str(item["answer"]), "", ENGLISH)
    except ValueError:
        raise UserError(
            f"reasoning_gym {config.name} has non-numeric answers ({str(item['answer'])[:40]!r}): "
            "set data.name to an arithmetic generator such as chain_sum or gsm_symbolic"
        ) from None
    # The answer has the format of GSM8K, so that a prepared folder can serve as a JSONL source.
    return Problem(problem_id, item["question"], "\n".join([*_steps(item["metadata"]), f"#### {gold}"]), gold)


def _steps(metadata: dict[str, Any]) -> list[str]:
    """Return the generator's worked steps; for chain_sum, one line per operation; else none."""
    if "answer_cot" in metadata:
        return str(metadata["answer_cot"]).rpartition("####")[0].strip().split("\n")
    if metadata.get("source_dataset") != "chain_sum":
        return []
    first, *rest = metadata["expression"].split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total}{sign}{term}={result}")
        total = result
    return lines
