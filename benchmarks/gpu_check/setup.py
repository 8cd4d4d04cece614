"""Where a step runs: device, folder for its files, and what of the machine it may use."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import StepFailedError

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

REPO = Path(__file__).resolve().parent.parent.parent
GPU, CPU = "cuda:0", "cpu"


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings that all steps share. `folder` is the step's own and empty at its start."""

    device: str
    folder: Path
    engine: bool = True  # whether vLLM may be used

    @property
    def cuda(self) -> bool:
        """Whether the steps run on a GPU."""
        return self.device != CPU

    @property
    def model(self) -> str:
        """Name of the shape that speed and memory are measured on; a CPU gets a tiny one."""
        return "qwen2.5-1.5b" if self.cuda else "tiny"

    def random_model(self, name: str | None = None) -> Path:
        """Write a model with random weights, `self.model` by default."""
        from benchmarks.random_models import write_random_model

        name = name or self.model
        return write_random_model(name, self.folder / name, self.device, "bfloat16" if self.cuda else "float32")

    def config(self, *overrides: str) -> Config:
        """Compose a configuration of policy gradient for this device, with the embedded model unless overridden."""
        from cli import load_config

        return load_config(["command=policy_gradient", *self.preset, f"artifacts={self.folder}", *overrides])

    @property
    def preset(self) -> tuple[str, ...]:
        """Arguments for runs that need no download: sums and the embedded model, on one GPU or the CPU."""
        if not self.cuda:
            return ("preset=cpu_demo", "wandb.mode=off")
        # The embedded model has 512 positions. Step 4 compiles; elsewhere it would only cost time.
        context = ("actor.max_model_len=512", "preprocess.max_tokens=160", "actor.enforce_eager=true")
        answers = (
            "policy_gradient.max_new_tokens=48",
            "sft.max_new_tokens=48",
            "policy_gradient.episodes_per_update=64",
        )
        return ("preset=one_gpu", "model=tiny", "data=chain_sum", "prompt=base", "wandb.mode=off", *context, *answers)


def step_environment(device: str) -> dict[str, str]:
    """Return the environment of a step and its children.

    vLLM's FlashInfer sampler is switched off unless the caller has chosen: it is compiled with nvcc at first use, which
    many machines lack, and it is never used with the processed log-probabilities that our engine asks for. On a CPU
    vLLM would compile its log-probability kernel, which needs a C++ compiler.
    """
    return {
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        **({"TORCHDYNAMO_DISABLE": "1"} if device == CPU else {}),
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(REPO),
    }


def run_python(arguments: list[str], what: str) -> str:
    """Run this Python with `arguments`, print its output, and return its standard output.

    Raises StepFailedError that names `what` and the last line of its error output if the exit code is not 0.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise StepFailedError(f"{what} ended with exit code {done.returncode}: {last[:300]}")
    return done.stdout


def run_cli(setup: Setup, *arguments: str) -> str:
    """Run `cli.py` with the preset of `setup` and these arguments; returns its output."""
    command = [str(REPO / "cli.py"), *setup.preset, f"artifacts={setup.folder}", *arguments]
    return run_python(command, " ".join(arguments[:2]))
