"""Time of grading expressions, compared with an update of the learner: `make bench-grading`.

Grades 512 completions with answers as in MATH (64 problems, 8 different completions each: right, re-written or nearly
right) in the child processes that a run uses, then times the learner's passes over a batch of SmolLM2-135M on one
thread, as in preset=cpu_smollm2, and scales them to 512 completions. Both are CPU times, which other work on the cores
hardly changes. Grading runs while the engine generates and the learner computes, so its share of the update is the most
that it can add. Generation is left out.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import learner_speed
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind
from grpo_gsm8k.grading.expression_pool import ExpressionPool
from tests.grading.expressions import cases

PROBLEMS, SAMPLES = 64, 8


def main() -> int:
    """Measure and print. Returns 1 if grading takes 5 % of the update or more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update-seconds", type=float, help="CPU time of an update; default: measured")
    options = parser.parse_args()
    wall_s, cpu_s, right = grading_seconds()
    count = PROBLEMS * SAMPLES
    print(f"grading {count} completions: {wall_s:.2f} s, {1000 * cpu_s / count:.1f} ms of CPU time each, {right} right")
    update_s = options.update_seconds or update_seconds(count)
    share = cpu_s / update_s
    print(f"update of {count} completions: {update_s:.1f} s of CPU time without generation")
    print(f"grading adds at most {share:.1%} to it")
    return int(share >= 0.05)


def completions() -> list[tuple[str, list[str]]]:
    """Return gold answers with their completions."""
    rng = random.Random(0)
    made = []
    for case in cases(PROBLEMS, seed=2):
        answers = list(itertools.islice(itertools.cycle([case.gold, *case.equal, *case.wrong]), SAMPLES))
        steps = " ".join(f"Step {i}: {rng.randrange(99)} + {rng.randrange(99)}." for i in range(20))
        made.append((case.gold, [f"{steps} The answer is $\\boxed{{{answer.strip('$')}}}$." for answer in answers]))
    return made


def grading_seconds() -> tuple[float, float, int]:
    """Return wall and CPU seconds of grading all completions with warm children, and the number of right ones."""
    rules = AnswerRules(AnswerFormat.BOXED, AnswerKind.EXPRESSION)
    pool = ExpressionPool()
    try:
        pool.verdicts([f"{i}/7" for i in range(20)], "1/7")  # starts the children
        before, started = _cpu_seconds(pool), time.perf_counter()
        right = 0
        for gold, texts in completions():
            right += sum(verdict.correct for verdict in pool.verdicts([rules.extract(t) or "" for t in texts], gold))
        return time.perf_counter() - started, _cpu_seconds(pool) - before, right
    finally:
        pool.close()


def update_seconds(count: int) -> float:
    """Return the CPU time of the learner's passes and optimizer step for that many completions, on one thread."""
    import torch

    from grpo_gsm8k.learner import update_record

    torch.set_num_threads(1)
    options = argparse.Namespace(model="wheel:smollm2_135m", variant="ours")
    with tempfile.TemporaryDirectory() as folder:
        samples, rewards_GN = update_record.load_batch(learner_speed.make_batch(Path(folder), options))
    passes, _, step = learner_speed.build_ours(options, samples, rewards_GN)
    started = time.process_time()
    passes()
    passes_s = (time.process_time() - started) / sum(map(len, samples)) * count
    started = time.process_time()
    step()
    return passes_s + time.process_time() - started


def _cpu_seconds(pool: ExpressionPool) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pool.pids]
    return sum(t.user + t.system for t in times)


if __name__ == "__main__":
    raise SystemExit(main())
