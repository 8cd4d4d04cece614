"""One case in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu_speed.cases import ON_CPU, ON_GPU, Case

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

REPO = Path(__file__).resolve().parent.parent.parent
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one case. `tokens` counts each prompt once, `user_tokens` once per completion; so do the FLOPs."""

    tokens: int
    user_tokens: int
    update_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    peak_mb: float
    flops: float
    user_flops: float


def run_case(case: Case, rounds: int = ROUNDS) -> Row | str:
    """Measure a case in a child process; returns the last line of its error output if it fails."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_speed.case_process", case.name, str(rounds)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return (done.stderr.strip().splitlines() or ["no output"])[-1][:150]
    return Row(**json.loads(lines[-1].removeprefix("RESULT ")))


def main() -> int:
    """Measure the case that the command line names, and print its figures."""
    case = next(case for case in (*ON_GPU, *ON_CPU) if case.name == sys.argv[1])
    print("RESULT " + json.dumps(asdict(measure_case(case, int(sys.argv[2])))))
    return 0


def measure_case(case: Case, rounds: int) -> Row:
    """Load a model with random weights, and measure updates on random rollouts."""
    import torch

    from benchmarks.flops import as_a_user_counts, computed_once, update_flops
    from benchmarks.memory_fit import peak_bytes, start_counting
    from benchmarks.random_models import write_random_model
    from benchmarks.update_timing import Learner, measure, random_rollouts
    from grpo_gsm8k.preflight.parameters import from_weights

    cuda = torch.cuda.is_available()
    config = configuration(case, cuda)
    with tempfile.TemporaryDirectory() as made:
        device, dtype = ("cuda:0", "bfloat16") if cuda else ("cpu", "float32")
        folder = write_random_model(case.model, Path(made), device, dtype)
        shape = from_weights(folder)
        groups = random_rollouts(case.size, shape.vocab)
        before = start_counting()
        learner = Learner(config, folder)
    found = measure(learner, groups, rounds, before, peak_bytes)
    once, user = computed_once(groups), as_a_user_counts(groups)
    frozen = case.kind == "lora"
    return Row(
        tokens=once.tokens,
        user_tokens=user.tokens,
        update_s=found.update_s,
        forward_s=found.split.forward_s,
        backward_s=found.split.backward_s,
        optimizer_s=found.split.optimizer_s,
        peak_mb=found.peak_bytes / 2**20,
        flops=update_flops(shape, once, frozen),
        user_flops=update_flops(shape, user, frozen),
    )


def configuration(case: Case, cuda: bool) -> Config:
    """Compose the configuration of a learner in bf16 on the first GPU, or in float32 on the CPU."""
    from cli import load_config

    place = ("learner.device=cuda:0", "learner.dtype=bfloat16", "learner.logprob_chunk=2048") if cuda else ()
    return load_config(["command=policy_gradient", "preset=cpu_demo", *case.overrides, *place])


if __name__ == "__main__":
    sys.exit(main())
