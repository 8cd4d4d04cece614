"""`command=eval eval.suite=generate`: completions for the prompts of a file, without gold answers.

`generations.jsonl` in the run folder gets one line per input line, and is sorted in the order of the input at the end.
It is written as results arrive, so a killed run loses only requests that were running.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.limits import limited
from grpo_gsm8k.data.problems import json_objects, text_of
from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.requests import samples_at, sampling_settings, sampling_spec
from grpo_gsm8k.evaluation.runner import model_folder, named_models, open_run, run_requests
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.grading.completion import before_stop
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.transport.protocol import Failed, GenerateGroup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.transport.protocol import GroupResult

Id = str | int
FILE, PROMPTS = "generations.jsonl", "prompts.jsonl"


@dataclass(frozen=True, slots=True)
class InputLine:
    """One input line. A `raw` text is a complete prompt, any other is a question for the template."""

    id: Id
    text: str
    raw: bool
    where: str  # file and line


@dataclass(frozen=True, slots=True)
class Generated:
    """One completion. `extracted` is the raw answer, `number` its normal form, `tokens` the number of tokens."""

    text: str
    extracted: str | None
    number: str | None
    finish_reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """One output line. `error` is the engine's message if it refused the prompt permanently, else None."""

    id: Id
    completions: tuple[Generated, ...]
    error: str | None


def generate(config: Config) -> int:
    """Generate completions for `eval.input_path`; returns exit code 0. Raises UserError before generation starts."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    assert config.eval.input_path is not None  # validated by EvalConfig
    models = named_models(config)
    if len(models) > 1:
        raise UserError(f"eval.model_path={list(models)}: eval.suite=generate takes one model")
    ((name, path),) = models.items()
    lines = limited(read_lines(config.eval.input_path), config.eval.limit, config.seed, "eval.limit")
    folder = model_folder(config, path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    requests = _requests(config, lines, tokenizer, stop_token_ids(folder, tokenizer, config.prompt.chat))
    ids = {request.request_id: line.id for request, line in zip(requests, lines, strict=True)}
    started = time.monotonic()
    with open_run(config, FILE) as run, Grader(config.prompt.answer_rules) as grader:
        _write_prompts(run.path / PROMPTS, lines, requests, tokenizer)
        file = JsonLines(run.path / FILE)
        done = {record["id"] for record in file.records()}
        if done:
            print(f"{len(done)} of {len(lines)} lines are already finished", flush=True)

        def take(result: GroupResult | Failed) -> None:
            made = generation_of(ids[result.request_id], result, tokenizer, grader, config.stop_texts)
            file.append(asdict(made))

        run_requests(config, name, folder, run.logs, [r for r in requests if ids[r.request_id] not in done], take)
        _finish(run, file, lines, sampling_settings(config), time.monotonic() - started)
    return 0


def read_lines(path: Path) -> list[InputLine]:
    """Read the input lines: `id`, and `question` or `prompt`. Raises UserError with file, line and fix."""
    lines: dict[Id, InputLine] = {}
    first: dict[Id, int] = {}
    for number, row in json_objects(path):
        where = f"{path}:{number}"
        name = row.get("id")
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise UserError(f'{where}: give each line an id, a string or an integer, such as "id": "q{number}"')
        if name in first:
            raise UserError(f"{where}: id {name!r} is already used in line {first[name]}: give each line its own")
        given = [key for key in ("prompt", "question") if key in row]
        if len(given) != 1:
            raise UserError(f"{where}: give either question or prompt, not {' and '.join(given) or 'neither'}")
        first[name] = number
        lines[name] = InputLine(name, text_of(row, given[0], where), given[0] == "prompt", where)
    if not lines:
        raise UserError(f'{path} is empty: write lines such as {{"id": "q1", "question": "..."}}')
    return list(lines.values())


def _requests(
    config: Config, lines: Sequence[InputLine], tokenizer: Any, stops: tuple[int, ...]
) -> list[GenerateGroup]:
    (temperature,) = config.eval.temperatures
    verbatim = config.prompt.model_copy(update={"system": "", "instruction": "", "text": "{question}"})
    room = config.actor.max_model_len - config.eval.max_new_tokens
    made: list[GenerateGroup] = []
    for index, line in enumerate(lines):
        ids = encode_prompt(verbatim if line.raw else config.prompt, line.text, tokenizer)
        if len(ids) > room:
            raise UserError(
                f"{line.where}: the prompt has {len(ids)} tokens, which together with eval.max_new_tokens="
                f"{config.eval.max_new_tokens} exceed actor.max_model_len={config.actor.max_model_len}: shorten it, "
                "raise the latter, or lower eval.max_new_tokens"
            )
        sampling = sampling_spec(config, temperature, index, stops)
        n = samples_at(config, temperature)
        made.append(GenerateGroup(str(index), ids, n, sampling, VERSION, pinned=True))
    return made


def _write_prompts(path: Path, lines: Sequence[InputLine], requests: Sequence[GenerateGroup], tokenizer: Any) -> None:
    """Write the exact prompts. Raises UserError if a resumed run has different ones, which invalidate its answers."""
    texts = (tokenizer.decode(request.prompt_ids.tolist(), skip_special_tokens=False) for request in requests)
    rows = ({"id": line.id, "prompt": text} for line, text in zip(lines, texts, strict=True))
    content = "".join(json.dumps(row) + "\n" for row in rows)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise UserError(
            f"eval.input_path no longer gives the prompts in {path}: restore the file, or start without "
            "eval.resume_from"
        )
    write_atomically(path, content)


def generation_of(
    name: Id, result: GroupResult | Failed, tokenizer: Any, grader: Grader, stops: Sequence[str] = ()
) -> Generation:
    """Return the output line of one result."""
    if isinstance(result, Failed):
        return Generation(name, (), result.error)
    decoded = [tokenizer.decode(c.token_ids.tolist(), skip_special_tokens=True) for c in result.completions]
    texts = [before_stop(text, stops) for text in decoded]
    completions = tuple(
        Generated(text, reading.extracted, reading.value, c.finish_reason, len(c.token_ids))
        for c, text, reading in zip(result.completions, texts, grader.read_all(texts), strict=True)
    )
    return Generation(name, completions, None)


def _finish(
    run: RunFolder, file: JsonLines, lines: Sequence[InputLine], sampling: dict[str, Any], seconds: float
) -> None:
    """Sort the output lines in the order of the input, and write the summary."""
    by_id = {record["id"]: record for record in file.records()}
    file.close()
    ordered = [by_id[line.id] for line in lines]
    write_atomically(file.path, "".join(json.dumps(record) + "\n" for record in ordered))
    made = [completion for record in ordered for completion in record["completions"]]
    ends = Counter(completion["finish_reason"] for completion in made)
    summary = {
        "kind": "generate",
        "wall_seconds": seconds,  # of this session only
        "lines": len(ordered),
        "failed": sum(record["error"] is not None for record in ordered),
        "completions": len(made),
        "truncated": ends["length"],
        "tokens": sum(completion["tokens"] for completion in made),
        "sampling": sampling,
    }
    write_atomically(run.summary_json, json.dumps(summary, indent=2) + "\n")
    failed = f", {summary['failed']} of them refused by the engine (see error)" if summary["failed"] else ""
    print(f"generated   {len(made)} completions of {len(ordered)} lines{failed}; {ends['length']} ended by the limit")
    print(f"written to  {file.path.absolute()}")
