"""`traces.teacher=local`: sample solutions from the configured model with our engines (rejection sampling)."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.cluster.placement import open_placement
from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.runtime.engines import VERSION, Engines
from grpo_gsm8k.start_model import pin_model, start_folder
from grpo_gsm8k.traces.trace_records import Answered, Usage, make_record
from grpo_gsm8k.transport.protocol import Failed, GenerateGroup, GroupResult, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.grader import Grader
    from grpo_gsm8k.traces.trace_records import Deliver, Producer, TraceSample


def local_producer(config: Config, logs: Path, grader: Grader) -> Producer:
    """Return a producer that samples `model` at `traces.temperature` (null: 1), with one seed per sample."""

    def produce(samples: Sequence[TraceSample], deliver: Deliver) -> str | None:
        from transformers import AutoTokenizer  # lazy: the import takes seconds

        pinned = pin_model(config)
        folder = start_folder(pinned)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        stops = stop_token_ids(folder, tokenizer, config.prompt.chat)
        by_id = {sample.id: sample for sample in samples}
        requests = [_request(config, sample, tokenizer, stops) for sample in samples]
        started = time.monotonic()
        with (
            open_placement(config, logs) as placement,
            Engines(config, folder, logs, config.actor.replicas, spawn=placement.spawn_actor) as engines,
        ):
            for result in engines.run(requests):
                sample = by_id[result.request_id]
                answered = _answered(config, sample, result, tokenizer, time.monotonic() - started)
                deliver(make_record(sample, answered, grader))
        return None

    return produce


def _request(config: Config, sample: TraceSample, tokenizer: Any, stops: tuple[int, ...]) -> GenerateGroup:
    digest = hashlib.sha256(f"{config.seed}:{sample.id}".encode()).digest()
    sampling = SamplingSpec(
        temperature=1.0 if config.traces.temperature is None else config.traces.temperature,
        top_p=1.0,
        max_new_tokens=config.traces.max_tokens,
        seed=int.from_bytes(digest[:6]),  # depends on the sample only, so that a resumed run draws the same
        stop_token_ids=stops,
    )
    prompt_ids = encode_prompt(config.prompt, sample.problem.question, tokenizer)
    return GenerateGroup(sample.id, prompt_ids, 1, sampling, VERSION, pinned=False)


def _answered(
    config: Config, sample: TraceSample, result: GroupResult | Failed, tokenizer: Any, seconds: float
) -> Answered:
    if isinstance(result, Failed):
        return Answered(model=config.model.path, error=result.error, settled_requests=0)
    completion = result.completions[0]
    prompt_tokens = len(encode_prompt(config.prompt, sample.problem.question, tokenizer))
    return Answered(
        text=tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=True),
        finish_reason=completion.finish_reason,
        usage=Usage(prompt_tokens, len(completion.token_ids)),
        latency_s=seconds,
        model=config.model.path,
        settled_requests=0,
    )
