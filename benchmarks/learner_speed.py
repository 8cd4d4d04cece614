"""Speed and memory of the learner: `make bench-learner`.

Runs forward and backward passes on the same rollouts in one process per variant: ours, ours with each switch enabled,
and the loss of TRL's GRPOTrainer on the same model. It uses a GPU if available, otherwise a CPU in float32. Rollouts
come from a recorded update (`--run FOLDER --step N`, see policy_gradient.record), or by default from reasoning-gym
problems with completions of seeded lengths. TRL pads a generation batch to its longest prompt and completion, and so
does `trl` here; `trl, tight` pads each micro-batch to its own maximum only. The gradient norms of our variants and
TRL's must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo_gsm8k.tracking.cpu_allocator import allocator_variables

REPO = Path(__file__).resolve().parent.parent
PROMPTS, GROUP, MICRO = 2, 8, 8
ROUNDS = 2  # the result is the faster one
VARIANTS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "gradient checkpointing": ("learner.gradient_checkpointing=true",),
    "compile": ("learner.compile=true",),
    "8-bit Adam": ("learner.optimizer=adamw_8bit",),
    "optimizer offloaded": ("learner.offload_optimizer=true",),
    "LoRA": ("learner=lora",),
    "QLoRA": ("learner=qlora", "actor.lora=merged"),
    "bf16": ("learner.dtype=bfloat16",),
    "logits of all tokens at once": ("learner.logprob_chunk=1000000",),
}
TRL = ("trl", "trl, tight", "trl, tight, gradient checkpointing")


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one variant. Tokens include each prompt once per completion."""

    tokens_per_s: float
    peak_mb: float  # above the loaded weights, gradients included, optimizer excluded
    step_s: float  # optimizer step
    optimizer_mb: float
    grad_norm: float


def main() -> int:
    """Run every variant and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="wheel:smollm2_135m", help="as model.path")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--run", type=Path, help="a run with policy_gradient.record=true")
    parser.add_argument("--step", type=int, help="the recorded update")
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args()
    if options.variant:
        print("RESULT " + json.dumps(asdict(measure(options))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        batch = options.run / "records" / f"step_{options.step}" if options.run else make_batch(Path(folder), options)
        names = options.only or [*TRL, *VARIANTS]
        results = {name: run_variant(name, batch, options) for name in names}
    print_table(results)
    return 0


def run_variant(name: str, batch: Path, options: argparse.Namespace) -> Result | str:
    """Return the result of a variant, or the last line of its error output."""
    command = [sys.executable, "-m", "benchmarks.learner_speed", "--variant", name, "--batch", str(batch)]
    command += ["--model", options.model, "--threads", str(options.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("TORCHDYNAMO_DISABLE", None)  # set by make for vLLM
    if name not in TRL:
        environment |= allocator_variables()  # as a run's learner gets it
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return (done.stderr.strip().splitlines() or ["no output"])[-1][:100]
    result = Result(**json.loads(lines[-1].removeprefix("RESULT ")))
    print(f"{name}: {result.tokens_per_s:.0f} tokens/s, {result.peak_mb:.0f} MB", flush=True)
    return result


def print_table(results: dict[str, Result | str]) -> None:
    """Print one line per variant, relative to TRL's loss if that was measured."""
    trl = results.get("trl")
    header = ("variant", "tokens/s", "vs. trl", "peak MB", "vs. trl", "step s", "optim. MB", "grad norm")
    print("{:36}{:>10}{:>10}{:>10}{:>10}{:>9}{:>11}{:>12}".format(*header))
    for name, r in results.items():
        if isinstance(r, str):
            print(f"{name:36}{r}")
            continue
        speed = f"{r.tokens_per_s / trl.tokens_per_s:.2f}" if isinstance(trl, Result) else "-"
        memory = f"{r.peak_mb / trl.peak_mb:.2f}" if isinstance(trl, Result) else "-"
        print(
            f"{name:36}{r.tokens_per_s:10.0f}{speed:>10}{r.peak_mb:10.0f}{memory:>10}{r.step_s:9.2f}"
            f"{r.optimizer_mb:11.0f}{r.grad_norm:12.6f}"
        )


def make_batch(folder: Path, options: argparse.Namespace) -> Path:
    """Record a batch: completions of 32 to 160 tokens, rewards of 0 and 1, random behavior log-probabilities."""
    from transformers import AutoTokenizer

    from grpo_gsm8k.data.prepare import ensure, load_split
    from grpo_gsm8k.data.prompts import encode_prompt
    from grpo_gsm8k.learner import update_record
    from grpo_gsm8k.learner.batching import rollout_sample

    config = configuration(options.model, "data=gsm_symbolic", "data.train_size=600", f"artifacts={folder}")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(options.model))
    rng = np.random.default_rng(0)
    groups = []
    for problem in load_split(ensure(config.data, folder), "train")[:PROMPTS]:
        prompt = encode_prompt(config.prompt, problem.question, tokenizer)
        text = np.array(tokenizer.encode(problem.question + problem.answer) * 4, dtype=np.int32)
        group = []
        for length in rng.integers(32, 161, size=GROUP):
            logprobs = rng.normal(-3.0, 0.5, size=length)
            group.append(rollout_sample(prompt, text[:length], logprobs, np.ones(length, dtype=bool)))
        groups.append(group)
    update_record.save_batch(folder, groups, rng.integers(0, 2, size=(PROMPTS, GROUP)).astype(np.float64))
    return folder


def configuration(model: str, *overrides: str) -> Any:
    """Return the learner's configuration for the GPU if there is one, else for the CPU."""
    import torch

    from cli import load_config

    gpu = ["learner.device=cuda:0", "learner.token_budget=8192"] if torch.cuda.is_available() else []
    precision = [] if gpu else ["learner.dtype=float32"]
    return load_config(
        ["command=policy_gradient", "preset=cpu_smollm2", f"model.path={model}", *gpu, *precision, *overrides]
    )


def model_folder(model: str) -> Path:
    """Return the model folder; the first call converts the model into artifacts/."""
    from grpo_gsm8k.models import resolve_model

    return resolve_model(model, None, REPO / "artifacts")


def measure(options: argparse.Namespace) -> Result:
    """Load the model and time its passes, in the child process."""
    import torch

    from grpo_gsm8k.learner import update_record

    torch.set_num_threads(options.threads)
    samples, rewards_GN = update_record.load_batch(options.batch)
    build = build_trl if options.variant in TRL else build_ours
    passes, parameters, step = build(options, samples, rewards_GN)
    tokens = sum(len(s.prompt_ids) + len(s.completion_ids) for group in samples for s in group)
    meter = Meter()
    seconds = []
    for _ in range(ROUNDS):
        for p in parameters:
            p.grad = None
        started = time.perf_counter()
        passes()
        meter.wait()
        seconds.append(time.perf_counter() - started)
    peak = meter.peak_mb()
    norm = torch.stack([p.grad.float().norm() for p in parameters if p.grad is not None]).norm().item()
    started = time.perf_counter()
    state_bytes = step()
    meter.wait()
    step_s = time.perf_counter() - started
    return Result(tokens / min(seconds), peak, step_s, state_bytes / 2**20, norm)


class Meter:
    """Memory use since creation, of the GPU if there is one, else of this process."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak RSS
        self._start = self.now_mb()

    def now_mb(self) -> float:
        """Memory in use."""
        return self._cuda.memory_allocated() / 2**20 if self._cuda is not None else _status("VmRSS")

    def peak_mb(self) -> float:
        """Peak memory since creation, minus the memory in use at creation."""
        most = self._cuda.max_memory_allocated() / 2**20 if self._cuda is not None else _status("VmHWM")
        return most - self._start

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self._cuda is not None:
            self._cuda.synchronize()


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


# Forward and backward passes, the parameters, and an optimizer step that returns the size of its state in bytes.
Built = tuple[Callable[[], None], list[Any], Callable[[], int]]


def build_ours(options: argparse.Namespace, samples: list[list[Any]], rewards_GN: np.ndarray) -> Built:
    """Return our passes over the whole batch, the trained parameters, and the optimizer step."""
    from grpo_gsm8k.learner.experience import prepare
    from grpo_gsm8k.learner.objective import objective
    from grpo_gsm8k.learner.setup import open_models, open_optimizers
    from grpo_gsm8k.learner.update import microbatches

    config = configuration(options.model, *VARIANTS[options.variant])
    folder = model_folder(options.model)
    models = open_models(config, folder, folder, None)
    flat = [s for group in prepare(samples, rewards_GN, models, config, 0.0, lambda: None).groups for s in group]

    def passes() -> None:
        for micro in microbatches(flat, config, models.policy.device):
            objective(models, micro, config, 0.0).loss.backward()

    def step() -> int:
        optimizers = open_optimizers(models, config.learner)
        optimizers.policy.step(0.0)
        return sum(tensor.nbytes for tensor in optimizers.policy.state_tensors().values())

    return passes, [p for _, p in models.policy.named_parameters()], step


def build_trl(options: argparse.Namespace, samples: list[list[Any]], rewards_GN: np.ndarray) -> Built:
    """Return the passes of TRL's GRPOTrainer, in micro-batches with the same number of sequences."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    folder = model_folder(options.model)
    gpu = torch.cuda.is_available()
    flat = [s for group in samples for s in group]
    micros = len(flat) // MICRO
    arguments = GRPOConfig(
        output_dir=str(options.batch / "trl"),
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=micros,
        num_generations=GROUP,
        loss_type="grpo",
        beta=0.0,
        epsilon=0.2,
        temperature=1.0,
        use_cpu=not gpu,
        bf16=gpu,
        gradient_checkpointing="checkpointing" in options.variant,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * GROUP),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.current_gradient_accumulation_steps = micros
    trainer.model.train()
    centered = rewards_GN - rewards_GN.mean(1, keepdims=True)
    advantages = (centered / (rewards_GN.std(1, ddof=1, keepdims=True) + 1e-6)).flatten()
    tight = "tight" in options.variant
    order = np.arange(len(flat)) if tight else np.random.default_rng(0).permutation(len(flat))  # TRL shuffles
    chunks = [order[i : i + MICRO] for i in range(0, len(order), MICRO)]
    inputs = [_padded([flat[i] for i in c], advantages[c], None if tight else flat, trainer) for c in chunks]

    def passes() -> None:
        for item in inputs:
            trainer.accelerator.backward(trainer._compute_loss(trainer.model, item))

    parameters = list(trainer.model.parameters())

    def step() -> int:
        optimizer = torch.optim.AdamW(parameters, lr=0.0)
        optimizer.step()
        return sum(t.nbytes for state in optimizer.state.values() for t in state.values())

    return passes, parameters, step


def _padded(chunk: list[Any], advantages: np.ndarray, padded_like: list[Any] | None, trainer: Any) -> dict[str, Any]:
    """Return TRL's inputs, with prompts padded on the left and completions on the right."""
    import torch

    prompt = max(len(s.prompt_ids) for s in padded_like or chunk)
    completion = max(len(s.completion_ids) for s in padded_like or chunk)
    ids = torch.zeros(len(chunk), prompt + completion, dtype=torch.long)
    mask, old = torch.zeros_like(ids), torch.zeros(len(chunk), completion)
    for row, s in enumerate(chunk):
        span = slice(prompt - len(s.prompt_ids), prompt + len(s.completion_ids))
        ids[row, span] = torch.as_tensor(np.concatenate([s.prompt_ids, s.completion_ids]), dtype=torch.long)
        mask[row, span] = 1
        old[row, : len(s.completion_ids)] = torch.as_tensor(s.behaviour_logprobs)
    tensors = {
        "prompt_ids": ids[:, :prompt],
        "prompt_mask": mask[:, :prompt],
        "completion_ids": ids[:, prompt:],
        "completion_mask": mask[:, prompt:],
        "advantages": torch.as_tensor(advantages, dtype=torch.float32),
        "old_per_token_logps": old,
    }
    return {name: tensor.to(trainer.accelerator.device) for name, tensor in tensors.items()}


if __name__ == "__main__":
    sys.exit(main())
