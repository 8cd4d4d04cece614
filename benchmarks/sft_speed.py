"""Speed of supervised fine-tuning compared with TRL: `make bench-sft`.

Runs optimizer steps of `learner.sft.fine_tune` and of TRL's SFTTrainer on the same model, examples, batch size,
precision and optimizer, each in its own process. Tokens are those of prompts and responses without padding. The first
step is a warm-up. The losses of every step must agree, because both make the same weight updates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.learner_speed import REPO, configuration, model_folder
from grpo_gsm8k.tracking.cpu_allocator import allocator_variables

LR = 2e-5


@dataclass(frozen=True, slots=True)
class Result:
    """Losses of all steps, and the speed of all but the first."""

    tokens_per_s: float
    losses: list[float]


def main() -> int:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--model", default="wheel:smollm2_135m", help="as model.path")
    parser.add_argument("--train", type=Path, help="JSON lines of question and answer; default: generated problems")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32, help="examples per optimizer step")
    parser.add_argument("--micro", type=int, default=8, help="examples per TRL micro-batch")
    options = parser.parse_args()
    if options.variant:
        print("RESULT " + json.dumps(asdict(ours(options) if options.variant == "ours" else trl(options))))
        return 0
    results = {name: run_variant(name) for name in ("trl", "ours")}
    print(f"{'':6}{'tokens/s':>10}  losses")
    for name, result in results.items():
        print(f"{name:6}{result.tokens_per_s:10.0f}  " + " ".join(f"{loss:.4f}" for loss in result.losses))
    print(f"ours is {results['ours'].tokens_per_s / results['trl'].tokens_per_s:.2f} times as fast")
    return 0


def run_variant(name: str) -> Result:
    """Measure one variant in a child process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sft_speed", "--variant", name, *sys.argv[1:]]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("TORCHDYNAMO_DISABLE", None)  # set by make for vLLM
    if name == "ours":
        environment |= allocator_variables()  # as a run's learner gets it
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return Result(**json.loads(line.removeprefix("RESULT ")))
    raise SystemExit(f"{name}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")


def examples(options: argparse.Namespace) -> list[Any]:
    """Return tokenized examples for all steps."""
    from transformers import AutoTokenizer

    from grpo_gsm8k.data.prepare import ensure, load_split
    from grpo_gsm8k.data.preprocess import encode_examples
    from grpo_gsm8k.data.problems import read_problems
    from grpo_gsm8k.data.responses import own_answers

    count = options.steps * options.batch
    config = configuration(options.model, "data=gsm_symbolic", f"data.train_size={count + 600}")
    if options.train:
        problems = read_problems(options.train, "train")
    else:
        with tempfile.TemporaryDirectory() as folder:
            problems = load_split(ensure(config.data, Path(folder)), "train")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(options.model))
    return encode_examples(config, own_answers(config, problems[:count]), tokenizer)[0]


def ours(options: argparse.Namespace) -> Result:
    """Measure our loop body."""
    import torch

    from grpo_gsm8k.learner.model import load_policy
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.sft_session import as_sequences
    from grpo_gsm8k.learner.sft_update import fine_tune

    torch.set_num_threads(options.threads)
    learner = configuration(options.model).learner.model_copy(update={"betas": (0.9, 0.999)})
    policy = load_policy(model_folder(options.model), learner)
    optimizer = Optimizer(policy.named_parameters(), learner)
    losses, times, counts = [], [], []
    items = examples(options)
    for start in range(0, len(items), options.batch):
        samples = [s for example in items[start : start + options.batch] for s in as_sequences(example)]
        started = time.perf_counter()
        stats = fine_tune(policy, optimizer, samples, learner, LR, lambda: None)
        times.append(time.perf_counter() - started)
        losses.append(stats.loss_sum / stats.tokens)
        counts.append(stats.input_tokens)
    return Result(sum(counts[1:]) / sum(times[1:]), losses)


def trl(options: argparse.Namespace) -> Result:
    """Measure TRL's trainer on the same tokens."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(options.threads)
    items = examples(options)
    rows = [
        {
            "input_ids": [*e.prompt_ids.tolist(), *e.response_ids.tolist()],
            "completion_mask": [0] * len(e.prompt_ids) + [1] * len(e.response_ids),
        }
        for e in items
    ]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=options.micro,
            gradient_accumulation_steps=options.batch // options.micro,
            num_train_epochs=1,
            learning_rate=LR,
            lr_scheduler_type="constant",
            adam_beta2=0.999,
            max_length=None,
            use_cpu=not gpu,
            bf16=gpu,
            gradient_checkpointing=False,
            completion_only_loss=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            shuffle_dataset=False,
            train_sampling_strategy="sequential",
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model_folder(options.model), dtype=torch.float32),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model_folder(options.model)),
            callbacks=[Clock()],
        )
        trainer.train()
    lengths = [len(row["input_ids"]) for row in rows][options.batch :]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Result(sum(lengths) / (ends[-1] - ends[0]), losses)


if __name__ == "__main__":
    sys.exit(main())
