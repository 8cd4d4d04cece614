"""lm-eval's tasks on our models: one set of engines or one server per model, one result file per task."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.cluster.placement import open_placement
from grpo_gsm8k.evaluation.harness.scores import Score, scores_of
from grpo_gsm8k.evaluation.harness.server import served
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.runtime.engines import Engines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.evaluation.harness.tasks import TaskList
    from grpo_gsm8k.tracking.run_folder import RunFolder

LM_EVAL = "lm_eval"  # folder in the run folder


def run_harness(
    config: Config,
    tasks: TaskList,
    manager: Any,
    models: Mapping[str, Path],
    run: RunFolder,
    kv_cache_bytes: int | None = None,
) -> list[Score]:
    """Run all tasks on all models, given by name; `manager` is `task_manager(tasks)`.

    Tasks that an earlier session finished are not run again. `kv_cache_bytes`: see `EngineSpec`.
    """
    folder = run.path / LM_EVAL
    folder.mkdir(exist_ok=True)
    pairs = [(model, task) for model in models for task in tasks.names]
    files = {pair: folder / f"{_file_name('.'.join(pair))}.json" for pair in pairs}
    for model, model_folder in models.items():
        missing = [task for task in tasks.names if not files[model, task].exists()]
        if missing:
            with _language_model(config, model_folder, run.logs, kv_cache_bytes) as lm:
                for task in missing:
                    _run_task(config, model, task, lm, manager, files[model, task])
    return [Score(**line) for file in files.values() for line in read_json(file)]


@contextlib.contextmanager
def _language_model(config: Config, model_folder: Path, logs: Path, kv_cache_bytes: int | None) -> Iterator[Any]:
    from transformers import AutoTokenizer  # lazy, like lm-eval below: it takes seconds

    actor, given = config.actor, config.eval
    if given.lm_eval_backend == "server":
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        with served(config, model_folder, logs) as url:
            yield LocalCompletionsAPI(
                base_url=url,
                model=str(model_folder),
                tokenizer=str(model_folder),
                tokenizer_backend="huggingface",
                tokenized_requests=True,
                num_concurrent=min(actor.max_num_seqs, 32),
                max_retries=given.max_attempts,
                max_length=actor.max_model_len,
                max_gen_toks=given.lm_eval_max_gen_toks,
                seed=config.seed,
            )
        return
    from grpo_gsm8k.evaluation.harness.engine_lm import EngineLimits, EngineLM

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    limits = EngineLimits(actor.max_model_len, given.lm_eval_max_gen_toks, given.max_attempts)
    with (
        open_placement(config, logs) as placement,
        Engines(config, model_folder, logs, given.num_shards, kv_cache_bytes, placement.spawn_actor) as engines,
    ):
        yield EngineLM(
            engines, tokenizer, stop_token_ids(model_folder, tokenizer, given.lm_eval_chat), limits, config.seed
        )


def _run_task(config: Config, model: str, task: str, lm: Any, manager: Any, file: Path) -> None:
    from lm_eval import simple_evaluate

    given, seed = config.eval, config.seed
    print(f"lm-eval: {task} on {model}", flush=True)
    found = simple_evaluate(
        model=lm,
        tasks=[task],
        task_manager=manager,
        num_fewshot=given.lm_eval_shots,
        limit=given.limit,
        apply_chat_template=given.lm_eval_chat,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    samples = (line for lines in found.pop("samples", {}).values() for line in lines)
    texts = (json.dumps(sample, default=str) + "\n" for sample in samples)
    write_atomically(file.with_suffix(".samples.jsonl"), "".join(texts))
    scores = [asdict(score) for score in scores_of(model, found)]
    write_atomically(file, json.dumps(scores, indent=2) + "\n")


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_")[-150:]
