"""Accuracy on problems: generate completions of all models, grade, summarize, compare."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.data.gold import Notation
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.data.problems import RowRules, read_problems
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.any_temperature import accuracy_at_any_temperature
from grpo_gsm8k.evaluation.chosen_items import chosen, save
from grpo_gsm8k.evaluation.comparisons import compare_models, compare_ways
from grpo_gsm8k.evaluation.diagnostics import diagnose_completions, find_contamination
from grpo_gsm8k.evaluation.predictions import FILE, PredictionFile, graded, refused
from grpo_gsm8k.evaluation.prompting import BARE, repeats, worked_examples
from grpo_gsm8k.evaluation.requests import Question, questions
from grpo_gsm8k.evaluation.results import summarize_setting
from grpo_gsm8k.evaluation.results_table import results_table
from grpo_gsm8k.evaluation.runner import run_requests
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.transport.protocol import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.any_temperature import AnyTemperature
    from grpo_gsm8k.evaluation.comparisons import Compared, ComparedWays
    from grpo_gsm8k.evaluation.diagnostics import Contamination, Diagnostics
    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.evaluation.results import Setting, SettingResult
    from grpo_gsm8k.grading.problem import Problem
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.transport.protocol import GroupResult

GRADING_THREADS = 4  # they wait for child processes


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The evaluated problems, the train problems, and the questions by model name."""

    problems: list[Problem]
    train: list[Problem]
    questions: dict[str, list[Question]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of an accuracy evaluation, as written to `summary.json`."""

    results: list[SettingResult]
    any_temperature: list[AnyTemperature]
    diagnostics: list[Diagnostics]
    contamination: Contamination | None
    comparisons: list[Compared]
    comparisons_of_ways: list[ComparedWays]
    item_ids: list[str]  # in the order of evaluation


def plan_evaluation(config: Config, folders: Mapping[str, Path]) -> EvaluationPlan:
    """Load problems and render prompts. `folders` are the model folders by name. Raises UserError."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    for way in repeats(config.eval.prompting, config.prompt):
        same = f"{way} equals {way.removesuffix(BARE)}"
        print(f"note: prompt={config.prompt.name} has neither prompt.system nor prompt.instruction: {same}")
    data = ensure(config.data, config.artifacts, config.prompt.locale, config.prompt.answer_kind)
    problems = evaluated_problems(config, load_split(data, config.eval.split))
    train = load_split(data, "train")
    examples = worked_examples(config, train, problems)
    by_model: dict[str, list[Question]] = {}
    for name, folder in folders.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        by_model[name] = questions(
            config, name, tokenizer, stop_token_ids(folder, tokenizer, config.prompt.chat), problems, examples
        )
    return EvaluationPlan(problems, train, by_model)


def measure(config: Config, plan: EvaluationPlan, folders: Mapping[str, Path], run: RunFolder) -> Measured:
    """Generate and grade all completions that an earlier session did not finish, and summarize."""
    all_questions = [question for per_model in plan.questions.values() for question in per_model]
    _write_prompts(run.path / "prompts.jsonl", all_questions)
    save(run, plan.problems)
    file = PredictionFile(run.path / FILE, {q.key: q.request.n for q in all_questions})
    for name, folder in folders.items():
        _run_unfinished(config, folder, plan.questions[name], file, run)
    order = {question.key: index for index, question in enumerate(all_questions)}
    contamination = find_contamination(plan.problems, plan.train, config.seed) if config.eval.contamination else None
    return summarize_predictions(file.finish(order), contamination, config.seed)


def summarize_predictions(
    predictions: Sequence[Prediction], contamination: Contamination | None, seed: int
) -> Measured:
    """Compute accuracies, confidence intervals and comparisons of graded completions."""
    by_setting: dict[Setting, list[Prediction]] = {}
    for prediction in predictions:
        by_setting.setdefault(prediction.key[:3], []).append(prediction)
    return Measured(
        results=[summarize_setting(key, lines, seed) for key, lines in by_setting.items()],
        any_temperature=accuracy_at_any_temperature(by_setting, seed),
        diagnostics=[diagnose_completions(lines) for lines in by_setting.values()],
        contamination=contamination,
        comparisons=compare_models(by_setting, seed),
        comparisons_of_ways=compare_ways(by_setting, seed),
        item_ids=list(dict.fromkeys(prediction.item_id for prediction in predictions)),
    )


def format_accuracy(measured: Measured) -> str:
    """Format the tables that are printed at the end."""
    lines = results_table(
        measured.results, measured.any_temperature, measured.comparisons, measured.comparisons_of_ways
    )
    if (found := measured.contamination) is not None:
        lines += (
            f"\nevaluated questions in train: {found.overlapping} share 13 consecutive words, "
            f"{found.near_duplicates} are near-duplicates"
        )
    return lines


def evaluated_problems(config: Config, split: list[Problem]) -> list[Problem]:
    """Return the problems of the file or the split that are evaluated. Raises UserError if there are none."""
    path = config.eval.data_path
    locale = config.data.locale
    notation = Notation(locale or config.prompt.locale, given=locale is not None)
    rules = RowRules(notation, config.prompt.answer_kind, config.data.columns)
    problems = read_problems(path, path.stem, rules) if path else split
    if path and not problems:
        raise UserError(f"eval.data_path={path} has no problems: write lines of question and answer")
    if not problems:
        raise UserError(f"eval.split={config.eval.split} has no problems: set data.test_size or eval.split=val")
    return chosen(config, problems)


def _write_prompts(path: Path, asked: Sequence[Question]) -> None:
    """Write the exact prompts, one line for all temperatures.

    Raises UserError if a resumed run has different ones, which invalidate its answers.
    """
    lines = {(q.model, q.prompting, q.problem.id): q.prompt for q in asked}
    rows = ({"model": m, "prompting": p, "item_id": i, "prompt": text} for (m, p, i), text in lines.items())
    content = "".join(json.dumps(row) + "\n" for row in rows)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise UserError(
            f"data, eval.examples_file or prompt no longer give the prompts in {path}: restore them, or start without "
            "eval.resume_from"
        )
    write_atomically(path, content)


def _run_unfinished(
    config: Config, folder: Path, asked: Sequence[Question], file: PredictionFile, run: RunFolder
) -> None:
    """Run the unfinished requests of one model. A request that fails permanently counts as wrong."""
    from transformers import AutoTokenizer

    waiting = {q.request.request_id: q for q in asked if q.key not in file.done}
    if not waiting:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with Grader(config.prompt.answer_rules) as grader, ThreadPoolExecutor(GRADING_THREADS) as threads:
        gradings: deque[Future[list[Prediction]]] = deque()

        def grade(result: GroupResult | Failed) -> list[Prediction]:
            question = waiting[result.request_id]
            if isinstance(result, Failed):
                return refused(question, result)
            return graded(question, result, tokenizer, grader)

        def take(result: GroupResult | Failed) -> None:
            if not grader.uses_children:
                file.add(grade(result))
                return
            gradings.append(threads.submit(grade, result))
            while gradings and gradings[0].done():
                file.add(gradings.popleft().result())

        run_requests(config, asked[0].model, folder, run.logs, [q.request for q in waiting.values()], take)
        for grading in gradings:
            file.add(grading.result())
