"""`command=eval`: ask every model every question, grade, summarise, compare."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.data.problems import read_jsonl
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.asking import ask, model_folder, named_models, open_run
from grpo_gsm8k.evaluation.diagnostics import contaminated, diagnose
from grpo_gsm8k.evaluation.predictions import PredictionFile, graded, refused
from grpo_gsm8k.evaluation.requests import Question, questions
from grpo_gsm8k.evaluation.summary import any_temperature, comparisons, results, table
from grpo_gsm8k.integrity import write_atomically
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.protocol import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.problems import Problem
    from grpo_gsm8k.evaluation.diagnostics import Contamination
    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.protocol import GroupResult
    from grpo_gsm8k.run_folder import RunFolder


def evaluate_models(config: Config) -> int:
    """Evaluate all models; returns 0. Raises UserError for what cannot be evaluated."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    from grpo_gsm8k.evaluation.report.command import report_of_run

    data = ensure(config.data, config.artifacts)
    problems = evaluated_problems(config, load_split(data, config.eval.split))
    train = load_split(data, "train")
    folders = {name: model_folder(config, path) for name, path in named_models(config).items()}
    asked: dict[str, list[Question]] = {}
    for name, folder in folders.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        asked[name] = questions(config, name, tokenizer, stop_token_ids(folder, tokenizer), problems, train)
    started = time.monotonic()
    everything = [question for per_model in asked.values() for question in per_model]
    run = open_run(config, "predictions.jsonl")
    _write_prompts(run.path / "prompts.jsonl", everything)
    file = PredictionFile(run.path / "predictions.jsonl", {q.key: q.request.n for q in everything})
    for name, folder in folders.items():
        _ask(config, folder, asked[name], file, run)
    order = {question.key: index for index, question in enumerate(everything)}
    found = contaminated(problems, train, config.seed) if config.eval.contamination else None
    write_results(config, run, file.finish(order), found, time.monotonic() - started)
    print(f"report      {report_of_run(run.path)}")
    return 0


def evaluated_problems(config: Config, split: list[Problem]) -> list[Problem]:
    """The first `limit` problems of the file or the split. Raises UserError when there are none."""
    path = config.eval.data_path
    problems = read_jsonl(path, path.stem) if path else split
    if not problems:
        raise UserError(f"eval.split={config.eval.split} has no problems: set data.test_size or eval.split=val")
    return problems[: config.eval.limit]


def _write_prompts(path: Path, asked: Sequence[Question]) -> None:
    """The exact prompts; those of another temperature are the same."""
    lines = {(q.model, q.prompting, q.problem.id): q.prompt for q in asked}
    rows = ({"model": m, "prompting": p, "item_id": i, "prompt": text} for (m, p, i), text in lines.items())
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _ask(config: Config, folder: Path, asked: Sequence[Question], file: PredictionFile, run: RunFolder) -> None:
    """What is not answered yet; a request that is refused for good counts as wrong."""
    from transformers import AutoTokenizer

    waiting = {q.request.request_id: q for q in asked if q.key not in file.done}
    if not waiting:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def take(result: GroupResult | Failed) -> None:
        question = waiting[result.request_id]
        if isinstance(result, Failed):
            file.add(refused(question, result))
        else:
            file.add(graded(question, result, tokenizer, config.prompt))

    ask(config, asked[0].model, folder, run.logs, [q.request for q in waiting.values()], take)


def write_results(
    config: Config,
    run: RunFolder,
    predictions: list[Prediction],
    contamination: Contamination | None,
    seconds: float,
) -> None:
    """Summarise the predictions in summary.json, and print the table."""
    by_setting: dict[tuple[str, str, float], list[Prediction]] = {}
    for prediction in predictions:
        by_setting.setdefault(prediction.key[:3], []).append(prediction)
    found = [results(key, lines, config.seed) for key, lines in by_setting.items()]
    anywhere = any_temperature(by_setting, config.seed)
    compared = comparisons(by_setting, config.seed)
    summary = {
        "kind": "eval",
        "wall_seconds": seconds,  # of this start: what a resumed evaluation did before is not in it
        "results": [asdict(result) for result in found],
        "any_temperature": [asdict(result) for result in anywhere],
        "diagnostics": [asdict(diagnose(lines)) for lines in by_setting.values()],
        "contamination": None if contamination is None else asdict(contamination),
        "comparisons": [asdict(comparison) for comparison in compared],
    }
    write_atomically(run.summary_json, json.dumps(summary, indent=2) + "\n")
    print(table(found, anywhere, compared))
    if contamination is not None:
        print(
            f"questions that are in train: {contamination.overlapping} share 13 words in a row, "
            f"{contamination.near_duplicates} are near-duplicates"
        )
    print(f"run folder  {run.path}")
