"""`command=eval`: ask every model every question, grade, summarise, compare."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from grpo_gsm8k import run_folder
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.data.problems import read_jsonl
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.diagnostics import contaminated, diagnose
from grpo_gsm8k.evaluation.predictions import PredictionFile, graded, refused
from grpo_gsm8k.evaluation.requests import Question, questions
from grpo_gsm8k.evaluation.summary import comparisons, results, table
from grpo_gsm8k.integrity import write_atomically
from grpo_gsm8k.models import context_length, stop_token_ids
from grpo_gsm8k.orchestrator.generation import Engines
from grpo_gsm8k.protocol import Failed
from grpo_gsm8k.start import pin_model, start_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.problems import Problem
    from grpo_gsm8k.evaluation.diagnostics import Contamination
    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.run_folder import RunFolder


def evaluate_models(config: Config) -> int:
    """Evaluate all models; returns 0. Raises UserError for what cannot be evaluated."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    from grpo_gsm8k.evaluation.report.command import report_of_run

    data = ensure(config.data, config.artifacts)
    problems = evaluated_problems(config, load_split(data, config.eval.split))
    train = load_split(data, "train")
    models = {name: _pinned(config, path) for name, path in named_models(config).items()}
    folders = {name: start_folder(pinned) for name, pinned in models.items()}
    asked: dict[str, list[Question]] = {}
    for name, folder in folders.items():
        _check_context(config, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        asked[name] = questions(config, name, tokenizer, stop_token_ids(folder, tokenizer), problems, train)
    started = time.monotonic()
    everything = [question for per_model in asked.values() for question in per_model]
    run = _open_run(config)
    _write_prompts(run.path / "prompts.jsonl", everything)
    file = PredictionFile(run.path / "predictions.jsonl", {q.key: q.request.n for q in everything})
    for name, folder in folders.items():
        _ask(config, folder, asked[name], file, run)
    order = {question.key: index for index, question in enumerate(everything)}
    found = contaminated(problems, train, config.seed) if config.eval.contamination else None
    _finish(config, run, file.finish(order), found, time.monotonic() - started)
    print(f"report      {report_of_run(run.path)}")
    return 0


def evaluated_problems(config: Config, split: list[Problem]) -> list[Problem]:
    """The first `limit` problems of the file or the split. Raises UserError when there are none."""
    path = config.eval.data_path
    problems = read_jsonl(path, path.stem) if path else split
    if not problems:
        raise UserError(f"eval.split={config.eval.split} has no problems: set data.test_size or eval.split=val")
    return problems[: config.eval.limit]


def named_models(config: Config) -> dict[str, str]:
    """Model paths by the names under which they are reported. Raises UserError for one that is given twice."""
    given = config.eval.model_path
    paths = [config.model.path] if given is None else [given] if isinstance(given, str) else given
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"eval.model_path={paths}: give different models")
    return {path: path for path in paths}


def _pinned(config: Config, path: str) -> Config:
    init = config.model.init if path == config.model.path else "pretrained"
    model = config.model.model_copy(update={"path": path, "init": init})
    if path != config.model.path:
        model = model.model_copy(update={"revision": None})
    return pin_model(config.model_copy(update={"model": model}))


def _check_context(config: Config, folder: Path) -> None:
    context = context_length(folder)
    if config.actor.max_model_len > context:
        raise UserError(f"actor.max_model_len={config.actor.max_model_len} exceeds the model's context of {context}")


def _open_run(config: Config) -> RunFolder:
    if config.eval.resume_from is None:
        run = run_folder.create(config.artifacts, config.name)
    else:
        run, _ = run_folder.find(config.artifacts, config.eval.resume_from)
    run_folder.write_config(run, config.model_dump(mode="json"))
    run_folder.write_manifest(run, config.model_dump(mode="json"))
    return run


def _write_prompts(path: Path, asked: Sequence[Question]) -> None:
    """The exact prompts; those of another temperature are the same."""
    lines = {(q.model, q.prompting, q.problem.id): q.prompt for q in asked}
    rows = ({"model": m, "prompting": p, "item_id": i, "prompt": text} for (m, p, i), text in lines.items())
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _ask(config: Config, folder: Path, asked: Sequence[Question], file: PredictionFile, run: RunFolder) -> None:
    """What is not answered yet; a refused request is tried again, and at last counts as wrong."""
    from transformers import AutoTokenizer

    waiting = {q.request.request_id: q for q in asked if q.key not in file.done}
    if not waiting:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with Engines(config, folder, run.logs, config.eval.num_shards) as engines:
        for attempt in range(1, config.eval.max_attempts + 1):
            for result in engines.run([q.request for q in waiting.values()]):
                question = waiting[result.request_id]
                if not isinstance(result, Failed):
                    file.add(graded(question, result, tokenizer, config.prompt))
                elif attempt == config.eval.max_attempts:
                    file.add(refused(question, result))
                else:
                    continue
                del waiting[result.request_id]
                if len(waiting) % 100 == 0:
                    print(f"{question.model}: {len(waiting)} questions to go", flush=True)
            if not waiting:
                return


def _finish(
    config: Config,
    run: RunFolder,
    predictions: list[Prediction],
    contamination: Contamination | None,
    seconds: float,
) -> None:
    by_setting: dict[tuple[str, str, float], list[Prediction]] = {}
    for prediction in predictions:
        by_setting.setdefault(prediction.key[:3], []).append(prediction)
    found = [results(key, lines, config.seed) for key, lines in by_setting.items()]
    compared = comparisons(by_setting, config.seed)
    summary = {
        "kind": "eval",
        "wall_seconds": seconds,  # of this start: what a resumed evaluation did before is not in it
        "results": [asdict(result) for result in found],
        "diagnostics": [asdict(diagnose(lines)) for lines in by_setting.values()],
        "contamination": None if contamination is None else asdict(contamination),
        "comparisons": [asdict(comparison) for comparison in compared],
    }
    write_atomically(run.summary_json, json.dumps(summary, indent=2) + "\n")
    print(table(found, compared))
    if contamination is not None:
        print(
            f"questions that are in train: {contamination.overlapping} share 13 words in a row, "
            f"{contamination.near_duplicates} are near-duplicates"
        )
    print(f"run folder  {run.path}")
