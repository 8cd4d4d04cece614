"""Arguments of the engine scenarios, which also run on a GPU: device, precision, compiled or eager, scheduling."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo_gsm8k.actor.engine import EngineSpec

# Mean |engine - learner| in nats that a canary may have. In bfloat16 the weights that the engine runs are rounded.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.25}


@dataclass(frozen=True)
class Scenario:
    """A start model, the folder for what a scenario writes, and how its engine runs."""

    model_folder: Path
    folder: Path
    device: str
    dtype: str
    compiled: bool
    async_scheduling: bool

    def spec(self, **changed: Any) -> EngineSpec:
        """Return the settings of a small engine; `changed` are fields that differ."""
        values: dict[str, Any] = {
            "kind": "vllm",
            "model_folder": str(self.model_folder),
            "device": self.device,
            "dtype": self.dtype,
            "gpu_memory": 0.5,
            "kv_cache_mb": 64,
            "max_model_len": 320,
            "max_num_seqs": 16,
            "max_batched_tokens": 1024,
            "enforce_eager": not self.compiled,
            "prefix_caching": True,
            "lora_rank": 0,
            "lora_versions": 1,
            "canary_tolerance": TOLERANCES[self.dtype],
            "seed": 0,
            "async_scheduling": self.async_scheduling,
        }
        return EngineSpec(**values | changed)


def read_scenario() -> Scenario:
    """Read `MODEL FOLDER [--device D] [--dtype T] [--compiled] [--async-scheduling]` from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=sorted(TOLERANCES), default="float32")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--async-scheduling", action="store_true")
    return Scenario(**vars(parser.parse_args()))
