"""Steps 3 and 4: the scenarios of the engine's tests on this device, with every token compared with Hugging Face.

The engine swaps weights under running requests. On a GPU vLLM uses another model runner and scheduler than on a CPU,
and CUDA graphs, so this is where its results are proven. float32 shows that they are exact, bfloat16 that the kernels
of real runs work. The log of a step names vLLM's model runner and attention backend.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu_check.outcome import require
from benchmarks.gpu_check.setup import run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

TEMPERATURE = 0.8  # of the scenarios
# Mean and largest |engine - Hugging Face in float32| of a token's log-probability in nats. Versions differ by more than
# 0.02 on average, so a mean below that would not hide a wrong version.
LIMITS = {"float32": (1e-3, 1e-2), "bfloat16": (0.02, 0.5)}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a scenario."""

    dtype: str
    compiled: bool
    async_scheduling: bool

    @property
    def name(self) -> str:
        """Words for the figures."""
        words = [
            self.dtype,
            "compiled" if self.compiled else "eager",
            "async" if self.async_scheduling else "not async",
        ]
        return ", ".join(words)

    def options(self, device: str) -> list[str]:
        """Return the scenario's arguments."""
        flags = ["--compiled"] * self.compiled + ["--async-scheduling"] * self.async_scheduling
        return ["--device", device, "--dtype", self.dtype, *flags]


def check_engine(setup: Setup, record: Record, variant: Variant) -> None:
    """Run `engine_scenario.py`, compare each token with its version, and read the errors of the injected faults."""
    folder, trace = _run(setup, "engine_scenario.py", variant)
    name = f"engine ({variant.name})"
    _compare(name, trace, variant.dtype, record, lambda version: _model(folder / f"hf{version}"))
    versions = {s[0] for g in trace["groups"] for c in g["completions"] for s in c["spans"]}
    spanning = sum(len(c["spans"]) > 1 for g in trace["groups"] for c in g["completions"])
    record(f"{name}: completions with several versions", spanning)
    record(f"{name}: largest canary gap", max(trace["canary_gaps"]))
    require(versions == {0, 1, 2, 3}, f"{name}: tokens of versions {sorted(versions)} instead of 0 to 3")
    require(spanning > 0, f"{name}: no request was running while weights were swapped")
    require(
        "did not become live" in trace["skipped_reload_error"], f"{name}: a reload that was skipped was not noticed"
    )
    require("damaged" in trace["damaged_error"], f"{name}: damaged weights were accepted")


def check_lora(setup: Setup, record: Record, variant: Variant) -> None:
    """Run `lora_scenario.py`, and compare each completion with the adapter that it started with."""
    folder, trace = _run(setup, "lora_scenario.py", variant)
    name = f"adapters ({variant.name})"
    for group in trace["groups"]:
        for completion in group["completions"]:
            span = [[group["version"], 0, len(completion["tokens"])]]
            require(completion["spans"] == span, f"{name}: a completion has the spans {completion['spans']}")
    base = folder.parent / "tiny"
    _compare(name, trace, variant.dtype, record, lambda version: _model(base, folder / f"adapter{version}"))
    record(f"{name}: largest canary gap", max(trace["canary_gaps"]))


def _run(setup: Setup, script: str, variant: Variant) -> tuple[Path, dict[str, Any]]:
    """Run a scenario with a tiny random model, and return its folder and record."""
    model = setup.folder / "tiny"
    if not model.exists():
        setup.random_model("tiny")
    folder = setup.folder / f"{script} {variant.name}".replace(", ", "_").replace(" ", "_")
    folder.mkdir()
    run_python([f"tests/actor/{script}", str(model), str(folder), *variant.options(setup.device)], script)
    return folder, json.loads((folder / "trace.json").read_text())


def _model(folder: Path, adapter: Path | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def _compare(name: str, trace: dict[str, Any], dtype: str, record: Record, load: Callable[[int], Any]) -> None:
    """Record the gaps of all tokens to Hugging Face in float32 on the CPU, and fail above the limits."""
    models: dict[int, Any] = {}
    gaps = []
    for group in trace["groups"]:
        for completion in group["completions"]:
            for version, start, end in completion["spans"]:
                model = models.setdefault(version, None) or load(version)
                models[version] = model
                expected = logprobs_of(model, group["prompt"], completion["tokens"])
                gaps.append(np.abs(expected[start:end] - np.array(completion["logprobs"][start:end])))
    joined = np.concatenate(gaps)
    mean, largest = float(joined.mean()), float(joined.max())
    record(f"{name}: tokens compared", len(joined))
    record(f"{name}: mean gap", mean)
    record(f"{name}: largest gap", largest)
    most_mean, most = LIMITS[dtype]
    require(mean < most_mean and largest < most, f"{name}: gap of {mean:.3g} on average, {largest:.3g} at most")


def logprobs_of(model: Any, prompt: list[int], completion: list[int]) -> np.ndarray:
    """Return the log-probability of each completion token at the scenarios' temperature."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].double() / TEMPERATURE
    positions = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return np.asarray(torch.log_softmax(logits, -1)[positions, torch.tensor(completion)])
