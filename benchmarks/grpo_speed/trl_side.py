"""TRL's side: GRPOTrainer with Hugging Face's generation, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.grpo_speed.measured import Round, Update
from benchmarks.grpo_speed.memory import MemoryWatch
from benchmarks.grpo_speed.workload import Size, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

REPO = Path(__file__).resolve().parent.parent.parent


def run_trl(model: Path, prompts: Sequence[Sequence[int]], size: Size, updates: int, threads: int) -> Round:
    """Run `updates` updates on these prompts (token ids). Raises RuntimeError with the error of a run that fails."""
    with tempfile.TemporaryDirectory() as folder:
        task = {"model": str(model), "prompts": prompts, "size": asdict(size), "updates": updates, "threads": threads}
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task))
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.grpo_speed.trl_side", str(file)]
        with (Path(folder) / "output.txt").open("w+") as output:
            process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=output, stderr=output, text=True)
            watch = MemoryWatch(process)
            code = process.wait()
            memory = watch.stop()
            output.seek(0)
            lines = [line for line in output.read().splitlines() if line.strip()]
    if code:
        raise RuntimeError(f"TRL's run ended with exit code {code}: {lines[-1] if lines else 'no output'}")
    result = next(line for line in lines if line.startswith("RESULT "))
    return Round([Update(**update) for update in json.loads(result.removeprefix("RESULT "))], memory)


def main() -> int:
    """Train in this process, and print the updates' times."""
    task = json.loads(Path(sys.argv[1]).read_text())
    size = Size(**task["size"])
    updates = train(Path(task["model"]), task["prompts"], size, task["updates"], task["threads"])
    print("RESULT " + json.dumps([asdict(update) for update in updates]))
    return 0


def train(model: Path, prompts: list[list[int]], size: Size, updates: int, threads: int) -> list[Update]:
    """Run GRPOTrainer on our prompts with our reward, and check that its completions are as long as ours."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [tokenizer.decode(ids) for ids in prompts]
    if [tokenizer(text)["input_ids"] for text in texts] != prompts:
        raise RuntimeError("TRL tokenizes the prompts differently")
    clock: list[tuple[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.append(("begin", time.perf_counter()))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(("end", time.perf_counter()))

    class TimedTrainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            started = time.perf_counter()
            output = super()._generate_and_score_completions(inputs)
            clock.append(("generated", time.perf_counter() - started))
            lengths = set(output["completion_mask"].sum(1).tolist())
            if lengths != {size.tokens}:
                raise RuntimeError(f"completions have {lengths} tokens instead of {size.tokens}")
            return output

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [spread(text) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            reward_funcs=reward,
            args=settings_of(folder, size, updates),
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    return updates_of(clock)


def settings_of(folder: str, size: Size, updates: int) -> Any:
    """Return TRL's settings: the same as ours, and no checkpointing of activations."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        max_steps=updates,
        per_device_train_batch_size=size.micro,
        gradient_accumulation_steps=size.completions // size.micro,
        num_generations=size.group,
        max_completion_length=size.tokens,
        generation_kwargs={"min_new_tokens": size.tokens},
        temperature=1.0,
        loss_type="grpo",
        beta=0.0,
        epsilon=0.2,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
    )


def updates_of(clock: list[tuple[str, float]]) -> list[Update]:
    """Pair the beginning and end of each update with the seconds of the generation between them."""
    found = []
    begin = generated = 0.0
    for name, value in clock:
        if name == "begin":
            begin, generated = value, 0.0
        elif name == "generated":
            generated += value
        else:
            seconds = value - begin
            found.append(Update(seconds, generated, seconds - generated))
    return found


if __name__ == "__main__":
    sys.exit(main())
