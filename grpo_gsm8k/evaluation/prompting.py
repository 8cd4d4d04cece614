"""Prompting variants: with or without the instruction, and with zero, one or several worked examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.data.gold import Notation
from grpo_gsm8k.data.problems import RowRules, json_objects, parse_problem, text_of
from grpo_gsm8k.data.prompts import Shot
from grpo_gsm8k.data.readers import Row
from grpo_gsm8k.data.responses import worked_answer
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config, PromptConfig
    from grpo_gsm8k.grading.problem import Problem

BARE = "_bare"


def without_instruction(prompt: PromptConfig) -> PromptConfig:
    """Return the template without the system prompt and the instruction."""
    return prompt.model_copy(update={"system": "", "instruction": ""})


def repeats(ways: Sequence[str], prompt: PromptConfig) -> list[str]:
    """Return the bare variants that duplicate another one because the template has no instruction."""
    if prompt.system or prompt.instruction:
        return []
    return [way for way in ways if way.endswith(BARE) and way.removesuffix(BARE) in ways]


def shot_count(prompting: str, shots: int) -> int:
    """Return the number of worked examples of a variant."""
    return {"zero_shot": 0, "one_shot": 1, "few_shot": shots}[prompting.removesuffix(BARE)]


def worked_examples(config: Config, train: Sequence[Problem], evaluated: Sequence[Problem]) -> tuple[Shot, ...]:
    """Return as many worked examples as the variant with the most needs. Raises UserError if there are too few.

    A variant with fewer takes the first, so that variants share them.
    """
    count = max(shot_count(way, config.eval.shots) for way in config.eval.prompting)
    file = config.eval.examples_file
    if file is not None:
        return _examples_of(config, file, count, evaluated)
    return drawn_examples(count, train, evaluated, config.prompt, config.seed)


def drawn_examples(
    count: int, train: Sequence[Problem], evaluated: Sequence[Problem], prompt: PromptConfig, seed: int
) -> tuple[Shot, ...]:
    """Draw worked examples by seed from train, without evaluated questions. Raises UserError if there are too few."""
    excluded = {problem.question for problem in evaluated}
    candidates = [problem for problem in train if problem.question not in excluded]
    if count > len(candidates):
        raise UserError(
            f"eval.shots={count}: train has only {len(candidates)} problems that are not evaluated; lower eval.shots"
        )
    order = np.random.default_rng(seed).permutation(len(candidates))[:count]
    return tuple(_worked(candidates[i], prompt) for i in order)


def _examples_of(config: Config, file: Path, count: int, evaluated: Sequence[Problem]) -> tuple[Shot, ...]:
    """Read the first `count` examples of a file. Raises UserError with file and line.

    A model that is shown an evaluated question with its answer is not measured by it, so that is refused.
    """
    if not file.is_file():
        raise UserError(f"eval.examples_file={file} is not a file: write lines of question and response")
    asked = {_words(problem.question): problem.id for problem in evaluated}
    locale = config.data.locale
    notation = Notation(locale or config.prompt.locale, given=locale is not None)
    examples: list[Shot] = []
    for number, row in json_objects(file):
        if len(examples) == count:
            break
        where = f"{file}:{number}"
        example = _example(row, where, config.prompt, notation)
        if (same := asked.get(_words(example.question))) is not None:
            raise UserError(f"{where}: the example is the evaluated question {same}: replace it in eval.examples_file")
        examples.append(example)
    if len(examples) < count:
        raise UserError(
            f"eval.examples_file={file} has {len(examples)} examples and eval.prompting needs {count}: add lines of "
            "question and response, or lower eval.shots"
        )
    return tuple(examples)


def _example(row: dict[Any, Any], where: str, prompt: PromptConfig, notation: Notation) -> Shot:
    """Return the example of one line: a `response` verbatim, an `answer` of a data set in the prompt's format."""
    given = [key for key in ("response", "answer") if key in row]
    if len(given) != 1:
        raise UserError(f"{where}: give either response or answer, not {' and '.join(given) or 'neither'}")
    if given == ["answer"]:
        return _worked(parse_problem(Row(where, row), "example", RowRules(notation, prompt.answer_kind)), prompt)
    return Shot(text_of(row, "question", where), text_of(row, "response", where))


def _worked(problem: Problem, prompt: PromptConfig) -> Shot:
    response = worked_answer(problem, prompt.answer_rules, calculator=False)
    return Shot(problem.question, response)


def _words(question: str) -> str:
    """Return a question in the form in which it is compared: case and spacing do not matter."""
    return " ".join(question.split()).casefold()
