"""Whole updates of policy gradient beside TRL's GRPOTrainer, in turns: `make bench-grpo`.

Both sides get the same model, prompts, rewards, sampling and number of tokens, float32 and two threads. Every round
starts ours and then TRL's in processes of their own, so that neither profits from a quieter machine. Ours is a run
from the command line: engine, learner, publishing and records. The model has SmolLM2-135M's shape and random weights
unless `--model` names a folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.flops import update_flops
from benchmarks.grpo_speed.limit import Limit, generation_flops, learning_work, limit, measure_rates
from benchmarks.grpo_speed.measured import Round, Side, summary, targets
from benchmarks.grpo_speed.ours import BEST, arguments, run_ours
from benchmarks.grpo_speed.trl_side import run_trl
from benchmarks.grpo_speed.workload import FULL, SMALL, Size, write_model, write_problems

THREADS = 2


def main() -> int:
    """Run the rounds, and print the comparison."""
    options = parse()
    size = SMALL if options.small else FULL
    given = {"prompts": options.prompts, "group": options.group, "tokens": options.tokens}
    size = replace(size, **{name: value for name, value in given.items() if value is not None})
    size = replace(size, micro=min(size.micro, size.completions))
    best = tuple(shlex.split(options.ours)) if options.ours is not None else BEST
    has_trl = not options.no_trl and importlib.util.find_spec("trl") is not None
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_problems(folder, size)
        model = options.model.resolve() if options.model else write_model(folder / "model", size)
        prompts, config = prompts_of_our_run(folder, model, size, best)
        found = limits(model, len(prompts[0]), size, config.learner.token_budget)
        ours: list[Round] = []
        trl: list[Round] = []
        for number in range(options.rounds):
            ours.append(run_ours(folder, model, size, options.updates, best))
            say(f"round {number + 1}, ours", ours[-1])
            if has_trl:
                trl.append(run_trl(model, prompts, size, options.trl_updates, THREADS))
                say(f"round {number + 1}, TRL", trl[-1])
    return report(options, size, summary(ours), summary(trl) if trl else None, found)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_speed", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny model and few tokens, to see that it runs")
    parser.add_argument("--model", type=Path, help="a model folder instead of random weights")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side is run")
    parser.add_argument("--updates", type=int, default=3, help="updates per round of ours")
    parser.add_argument("--trl-updates", type=int, default=1, help="updates per round of TRL's")
    parser.add_argument("--prompts", type=int, help="prompts per update")
    parser.add_argument("--group", type=int, help="completions per prompt")
    parser.add_argument("--tokens", type=int, help="tokens per completion")
    parser.add_argument("--no-trl", action="store_true", help="measure ours alone")
    parser.add_argument("--ours", help=f"overrides for ours instead of '{' '.join(BEST)}'")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    return parser.parse_args()


def prompts_of_our_run(folder: Path, model: Path, size: Size, best: tuple[str, ...]) -> tuple[list[list[int]], Any]:
    """Return the token ids of our run's training prompts, and its configuration."""
    from transformers import AutoTokenizer

    from cli import load_config
    from grpo_gsm8k.data.prepare import ensure, load_split
    from grpo_gsm8k.data.prompts import encode_prompt

    config = load_config([*arguments(folder, model, size, 1, best), f"artifacts={folder / 'prompts'}"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    problems = load_split(ensure(config.data, config.artifacts), "train")
    return [encode_prompt(config.prompt, p.question, tokenizer).tolist() for p in problems], config


def limits(model: Path, prompt: int, size: Size, micro_tokens: int) -> dict[int, Limit]:
    """Return the arithmetic limit with one and two threads."""
    from grpo_gsm8k.preflight.parameters import from_weights

    shape = from_weights(model)
    generation = generation_flops(shape, prompt, size)
    learning = update_flops(shape, learning_work(prompt, size), frozen=False)
    print(f"{generation / 1e9:.0f} GFLOP to generate, {learning / 1e9:.0f} GFLOP to learn", flush=True)
    found = {}
    for threads in (1, THREADS):
        rates = measure_rates(shape, size.completions, micro_tokens, threads)
        print(
            f"{threads} threads: {rates.generating / 1e9:.0f} GFLOP/s with {size.completions} rows, "
            f"{rates.learning / 1e9:.0f} with {micro_tokens}",
            flush=True,
        )
        found[threads] = limit(generation, learning, rates)
    return found


def say(name: str, item: Round) -> None:
    """Print the updates of a round."""
    seconds = ", ".join(f"{u.seconds:.1f}" for u in item.updates)
    print(f"{name}: {seconds} s per update, {item.memory.resident_mb:.0f} MiB", flush=True)


def report(options: argparse.Namespace, size: Size, ours: Side, trl: Side | None, found: dict[int, Limit]) -> int:
    """Print a table and the targets, and write the figures to a file if one is named."""
    tokens = size.completions * size.tokens
    print(f"{'':16}{'s/update':>10}{'generation':>12}{'training':>10}{'tokens/s':>10}{'RSS MiB':>10}{'PSS MiB':>10}")
    for name, side in (("ours", ours), ("TRL", trl)):
        if side is not None:
            print(
                f"{name:16}{side.seconds:10.1f}{side.generation_s:12.1f}{side.training_s:10.1f}"
                f"{tokens / side.seconds:10.0f}{side.resident_mb:10.0f}{side.proportional_mb:10.0f}"
            )
    both = found[THREADS]
    print(f"{'matrix products':16}{both.seconds:10.1f}{both.generation_s:12.1f}{both.learning_s:10.1f}")
    print(f"published weights in shared memory, ours: {ours.shared_files_mb:.0f} MiB")
    reached = targets(ours, trl, both.seconds)
    for target in reached:
        print(f"{'reached' if target.met else 'missed '}  {target.text}: {target.value:.2f}")
    if options.output:
        content = {
            "size": asdict(size),
            "ours": asdict(ours),
            "trl": None if trl is None else asdict(trl),
            "limit_s": {str(threads): asdict(item) for threads, item in found.items()},
            "targets": [asdict(target) for target in reached],
        }
        options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
