"""Script for test_tensor_parallel.py: an engine of two processes loads weights, and finds reloads that miss a part."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from grpo_gsm8k.actor.vllm_engine import VllmEngine
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import GroupResult
from tests.actor.engine_scenario import publish, request, run_all, step
from tests.actor.scenario_options import Scenario


def probes(engine: VllmEngine, file: Path) -> list[tuple[int, str]]:
    """What each process finds when it compares its part of the running model with a file."""
    found = engine._engine.collective_rpc("probe_weights", kwargs={"file": str(file)})
    return [(probe.compared, probe.differs) for probe in found]


def planted(tensors: dict[str, torch.Tensor], name: str, at: int) -> dict[str, torch.Tensor]:
    """The tensors with one that differs in one row or element."""
    changed = {key: value.clone() for key, value in tensors.items()}
    changed[name][at] += 1.0
    return changed


def main(model_folder: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    scenario = Scenario(model_folder, folder, "cpu", "float32", compiled=False, async_scheduling=False)
    engine = VllmEngine(scenario.spec(tensor_parallel=2))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 100, 12).astype(np.int32) for _ in range(2)]
    with torch.no_grad():
        for parameter in model.parameters():  # other weights than those that the engine began with
            parameter.mul_(1.05)
    ref = publish(model, 1, folder, list(range(5, 21)))
    gaps: list[float] = []
    engine.load(weights.verify(ref))
    results: dict[str, GroupResult] = {}
    while not gaps:
        step(engine, results, gaps)
    results = run_all(engine, [request(str(i), prompt, seed=i) for i, prompt in enumerate(prompts)])
    file = Path(ref.path) / weights.MODEL_FILE
    tensors = load_file(file)
    record = {"gap": gaps[0], "equal": probes(engine, file), "planted": {}, "gaps": gaps_of(model, prompts, results)}
    for name, value in tensors.items():
        for at in (0, len(value) - 1):
            save_file(planted(tensors, name, at), folder / "planted.safetensors")
            found = probes(engine, folder / "planted.safetensors")
            record["planted"][f"{name}[{at}]"] = [differs for _, differs in found]
    record["children"] = [child.pid for child in psutil.Process().children(recursive=True)]
    (folder / "record.tmp").write_text(json.dumps(record))
    (folder / "record.tmp").rename(folder / "record.json")
    time.sleep(600)  # until the test kills this process


def gaps_of(model: torch.nn.Module, prompts: list[np.ndarray], results: dict[str, GroupResult]) -> list[float]:
    """Largest difference of the engine's log-probabilities from Hugging Face's, per prompt."""
    found = []
    for i, prompt in enumerate(prompts):
        worst = 0.0
        for completion in results[str(i)].completions:
            ids = torch.tensor([[*prompt.tolist(), *completion.token_ids.tolist()]])
            with torch.no_grad():
                logprobs = torch.log_softmax(model(ids).logits[0].double() / 0.8, -1)
            at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
            expected = logprobs[at, ids[0, len(prompt) :]].numpy()
            worst = max(worst, float(np.abs(expected - completion.logprobs).max()))
        found.append(worst)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
