"""Script for test_sampling.py: stop texts and sampling settings in the real engine, with tokens of several letters."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from grpo_gsm8k.actor.engine import EngineSpec
from grpo_gsm8k.actor.vllm_engine import VllmEngine
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, SamplingSpec

NEVER = 0  # <pad>: never sampled as a stop
SETTINGS: dict[str, dict[str, object]] = {
    "free": {},
    "inside": {"stop_texts": ("S",)},  # begins and ends in the middle of a token
    "across": {"stop_texts": ("xq", "bq")},  # the end of a token and the beginning of the next one
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.3},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "all": {"stop_texts": ("S",), "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.2},
}


def main(model_folder: Path, output: Path) -> None:
    spec = EngineSpec(
        kind="vllm",
        model_folder=str(model_folder),
        device="cpu",
        dtype="float32",
        gpu_memory=0.5,
        kv_cache_mb=64,
        max_model_len=128,
        max_num_seqs=64,
        max_batched_tokens=1024,
        enforce_eager=True,
        prefix_caching=True,
        lora_rank=0,
        lora_versions=1,
        canary_tolerance=1e-3,
        seed=0,
        own_version=0,
    )
    engine = VllmEngine(spec)
    prompt = np.random.default_rng(0).integers(5, 90, size=20).astype(np.int32)
    for name, given in SETTINGS.items():
        sampling = SamplingSpec(0.8, 1.0, 48, 7, (NEVER,), **given)  # type: ignore[arg-type]
        engine.add(GenerateGroup(name, prompt, 6, sampling, 0, pinned=False))
    results: dict[str, GroupResult] = {}
    while len(results) < len(SETTINGS):
        for result in engine.step():
            assert isinstance(result, GroupResult)
            results[result.request_id] = result
    found = {
        name: [
            {
                "tokens": c.token_ids.tolist(),
                "logprobs": c.logprobs.tolist(),
                "finish_reason": c.finish_reason,
                "spans": [[s.version, s.start, s.end] for s in c.version_spans],
            }
            for c in result.completions
        ]
        for name, result in results.items()
    }
    output.write_text(json.dumps({"prompt": prompt.tolist(), "completions": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
