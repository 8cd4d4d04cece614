"""Script for test_reload.py: reloads that fail in part, of the real engine, with requests running.

Prints the error of each fault by its name as JSON; "" means that the reload passed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from grpo_gsm8k.actor import vllm_engine
from grpo_gsm8k.actor.engine import EngineSpec
from grpo_gsm8k.actor.vllm_engine import ShmWeightTransfer, VllmEngine
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import GroupResult, WeightsRef
from tests.actor.engine_scenario import publish, request

TOLERANCE = 1e9  # no canary raises: the probe alone must notice
STEP = 1e-4  # change of each weight per version: what training changes


def reload_error(engine: VllmEngine, ref: WeightsRef) -> str:
    """Load under running requests, and return the error."""
    try:
        engine.load(weights.verify(ref))
    except WeightsError as error:
        return str(error)
    return ""


def main(model_folder: Path, folder: Path, dtype: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, dtype)).eval()
    skippable = [name for name, _ in model.named_parameters()]
    version = 0

    def next_version() -> WeightsRef:
        nonlocal version
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(STEP * (1 + version) * torch.randn_like(parameter))
                parameter.mul_(1.01)
        version += 1
        return publish(model, version, folder, [5, 6, 7, 8])

    spec = EngineSpec(
        "vllm", str(model_folder), "cpu", dtype, 0.5, 64, 320, 16, 1024, True, True, 0, 1, TOLERANCE, seed=0
    )
    engine = VllmEngine(spec)
    engine.load(weights.verify(next_version()))
    engine.add(request("running", np.arange(5, 60, dtype=np.int32), seed=1, n=4, tokens=250))
    done: list[object] = [r for _ in range(3) for r in engine.step()]  # the canary of the first load is through
    errors: dict[str, str] = {}
    whole, tensors = ShmWeightTransfer.receive_weights, vllm_engine._tensors
    for fault in ["none", "no-op", *skippable, "none again"]:
        fired: list[str] = []
        if fault == "no-op":
            ShmWeightTransfer.receive_weights = lambda self, info: fired.append("no-op")  # noqa: B023
        elif fault in skippable:

            def without(file: str, fault: str = fault, fired: list[str] = fired) -> object:
                for name, tensor in tensors(file):
                    if name == fault:
                        fired.append(name)
                    else:
                        yield name, tensor

            vllm_engine._tensors = without
        errors[fault] = reload_error(engine, next_version())
        assert fired == ([] if fault.startswith("none") else [fault])
        ShmWeightTransfer.receive_weights, vllm_engine._tensors = whole, tensors
        if not errors[fault]:
            done += [r for _ in range(3) for r in engine.step()]
    assert not any(isinstance(result, GroupResult) for result in done)  # requests were running all the time
    (folder / "errors.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
