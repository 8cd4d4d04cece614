"""Script for test_vllm_engine.py: swap weights of the real engine under running requests, and record its results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from grpo_gsm8k.actor.vllm_engine import ShmWeightTransfer, VllmEngine
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, SamplingSpec, WeightsLive, WeightsRef
from tests.actor.scenario_options import Scenario, read_scenario

NEVER = 0  # <pad>: never sampled as a stop


def request(name: str, prompt: np.ndarray, seed: int, n: int = 2, tokens: int = 60) -> GenerateGroup:
    sampling = SamplingSpec(0.8, 1.0, tokens, seed, (NEVER,))
    return GenerateGroup(name, prompt, n, sampling, 0, pinned=False)


def publish(
    model: torch.nn.Module, version: int, folder: Path, canary_ids: list[int], dtype: torch.dtype | None = None
) -> WeightsRef:
    """Publish weights, in `dtype` if given, with a canary computed by Hugging Face."""
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([canary_ids])).logits[0].double(), -1)
    values = [float(logprobs[i, token]) for i, token in enumerate(canary_ids[1:])]
    tensors = {name: p.detach().clone().to(dtype or p.dtype) for name, p in model.named_parameters()}
    canary = weights.Canary(tuple(canary_ids), tuple(values))

    def write(to: Path) -> dict[str, str]:
        save_file(tensors, to / weights.MODEL_FILE)
        return {}

    return weights.publish(folder, version, "model", 1, write, canary)


def run_all(engine: VllmEngine, requests: list[GenerateGroup]) -> dict[str, GroupResult]:
    for item in requests:
        engine.add(item)
    results: dict[str, GroupResult] = {}
    while len(results) < len(requests):
        step(engine, results, [])
    return results


def swaps(engine: VllmEngine, refs: list[WeightsRef], prompts: list[np.ndarray]) -> tuple[dict, list[float]]:
    """Load each version while requests of the previous one are running; returns results and canary gaps."""
    gaps: list[float] = []
    results: dict[str, GroupResult] = {}
    for version, ref in enumerate(refs):
        engine.load(weights.verify(ref))
        for i, prompt in enumerate(prompts):
            engine.add(request(f"{version}/{i}", prompt, seed=100 * version + 10 * i))
        for _ in range(25):
            step(engine, results, gaps)
    while len(results) < len(refs) * len(prompts):
        step(engine, results, gaps)
    return results, gaps


def step(engine: VllmEngine, results: dict[str, GroupResult], gaps: list[float]) -> None:
    for result in engine.step():
        if isinstance(result, WeightsLive):
            gaps.append(result.canary_gap)
        else:
            assert isinstance(result, GroupResult)
            results[result.request_id] = result


def cancel(engine: VllmEngine, prompts: list[np.ndarray]) -> tuple[dict[str, GroupResult], bool]:
    """Cancel a running group beside another; returns the results, and whether nothing was left in the engine."""
    results: dict[str, GroupResult] = {}
    engine.add(request("gone/1", prompts[1], seed=3, n=4))
    engine.add(request("kept/0", prompts[0], seed=7))
    for _ in range(5):
        step(engine, results, [])
    engine.abort(["gone/1"])
    while "kept/0" not in results:
        step(engine, results, [])
    return results, not engine._engine.has_unfinished_requests()


def error_of(engine: VllmEngine, ref: WeightsRef) -> str:
    try:
        engine.load(weights.verify(ref))
        while not any(isinstance(result, WeightsLive) for result in engine.step()):
            pass
    except WeightsError as error:
        return str(error)
    return "no error"


def main(scenario: Scenario) -> None:
    folder, dtype = scenario.folder, getattr(torch, scenario.dtype)
    rng = np.random.default_rng(0)
    model = AutoModelForCausalLM.from_pretrained(scenario.model_folder, dtype=torch.float32).eval()
    canary_ids = rng.integers(5, 90, size=64).tolist()
    shared = rng.integers(5, 90, size=140)  # longer than a cache block
    prompts = [np.concatenate([shared, rng.integers(5, 90, size=8 + i)]).astype(np.int32) for i in range(3)]
    refs = []
    for version in range(6):
        if version:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder / f"hf{version}")
        refs.append(publish(model, version, folder, canary_ids, dtype))
    engine = VllmEngine(scenario.spec())
    results, gaps = swaps(engine, refs[:4], prompts)
    seven = run_all(engine, [request("seven", prompts[0], seed=7)])["seven"]
    singles = run_all(engine, [request(f"single{s}", prompts[0], seed=s, n=1) for s in (7, 8)])

    beside, left_nothing = cancel(engine, prompts)
    results |= beside

    (Path(refs[4].path) / weights.MODEL_FILE).open("r+b").write(b"\xff")
    damaged = error_of(engine, refs[4])
    after = run_all(engine, [request("after", prompts[0], seed=7)])["after"]
    fired: list[str] = []
    ShmWeightTransfer.receive_weights = lambda self, info: fired.append(info.file)
    ShmWeightTransfer.start_weight_update = ShmWeightTransfer.finish_weight_update = lambda self: None
    skipped = error_of(engine, refs[5])
    assert fired == [str(Path(refs[5].path) / weights.MODEL_FILE)]  # the fault was injected

    trace = {
        "groups": [
            {
                "prompt": prompts[int(name.split("/")[1])].tolist(),
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
        ],
        "names": list(results),
        "left_nothing": left_nothing,
        "canary_gaps": gaps,
        "damaged_error": damaged,
        "generates_after_refusal": [c.token_ids.tolist() for c in after.completions]
        == [c.token_ids.tolist() for c in seven.completions],
        "skipped_reload_error": skipped,
        "group_of_seed_7": [c.token_ids.tolist() for c in seven.completions],
        "singles_of_seeds_7_and_8": [singles[f"single{s}"].completions[0].token_ids.tolist() for s in (7, 8)],
    }
    (folder / "trace.json").write_text(json.dumps(trace))


if __name__ == "__main__":
    main(read_scenario())
