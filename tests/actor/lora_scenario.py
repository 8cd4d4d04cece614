"""Script for test_lora_engine.py: load five adapters, each while requests of the previous one are running."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from cli import load_config
from grpo_gsm8k.actor.vllm_engine import VllmEngine
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.publisher import Publisher
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, SamplingSpec, WeightsLive
from tests.actor.scenario_options import Scenario, read_scenario

VERSIONS = 5


def score_prompt_error(engine: VllmEngine, prompt: np.ndarray) -> str:
    try:
        engine.add(GenerateGroup("score", prompt, 1, SamplingSpec(0.0, 1.0, 1, 0, (0,)), 0, False, score_prompt=True))
    except ValueError as error:
        return str(error)
    return "no error"


def temperature_error(engine: VllmEngine, prompt: np.ndarray) -> str:
    try:
        engine.add(GenerateGroup("cold", prompt, 1, SamplingSpec(0.001, 1.0, 1, 0, (0,)), 0, False))
    except ValueError as error:
        return str(error)
    return "no error"


def wrong_adapter_error(engine: VllmEngine) -> str:
    try:
        for _ in range(5):
            engine.step()
    except WeightsError as error:
        return str(error)
    return "no error"


def main(scenario: Scenario) -> None:
    folder = scenario.folder
    words = ["command=policy_gradient", "preset=cpu_demo", "learner=lora", "learner.lora.rank=12"]
    config = load_config([*words, f"actor.dtype={scenario.dtype}"])
    policy = load_policy(scenario.model_folder, config.learner)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(5, 90, size=140 + i).astype(np.int32) for i in range(2)]
    item: Any = SimpleNamespace(prompt_ids=prompts[0])
    publisher = Publisher(folder, policy, config, [item])
    engine = VllmEngine(scenario.spec(lora_rank=12, lora_versions=VERSIONS))
    results: dict[str, GroupResult] = {}
    live: list[float] = []

    def step() -> None:
        for result in engine.step():
            if isinstance(result, WeightsLive):
                live.append(result.canary_gap)
            else:
                assert isinstance(result, GroupResult)
                results[result.request_id] = result

    for version in range(VERSIONS):
        with torch.no_grad():
            for _, parameter in policy.named_parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        policy.model.save_pretrained(folder / f"adapter{version}")
        engine.load(weights.verify(publisher.publish(version).ref))
        for i, prompt in enumerate(prompts):
            sampling = SamplingSpec(0.8, 1.0, 50, 100 * version + 10 * i, (0,))
            engine.add(GenerateGroup(f"{version}/{i}", prompt, 2, sampling, 0, pinned=False))
        for _ in range(20):
            step()
    while len(results) < VERSIONS * len(prompts):
        step()
    groups = [
        {
            "prompt": prompts[int(name.split("/")[1])].tolist(),
            "version": int(name.split("/")[0]),
            "completions": [
                {
                    "tokens": c.token_ids.tolist(),
                    "logprobs": c.logprobs.tolist(),
                    "spans": [[s.version, s.start, s.end] for s in c.version_spans],
                }
                for c in result.completions
            ],
        }
        for name, result in results.items()
    ]
    stale = publisher._canary()
    with torch.no_grad():
        for _, parameter in policy.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    publisher._canary = lambda: stale
    engine.load(weights.verify(publisher.publish(VERSIONS).ref))
    size = sum(file.stat().st_size for file in (folder / "v0").iterdir())
    (folder / "trace.json").write_text(
        json.dumps(
            {
                "groups": groups,
                "canary_gaps": live,
                "bytes": size,
                "score_prompt_error": score_prompt_error(engine, prompts[0]),
                "temperature_error": temperature_error(engine, prompts[0]),
                "wrong_adapter_error": wrong_adapter_error(engine),
            }
        )
    )


if __name__ == "__main__":
    main(read_scenario())
