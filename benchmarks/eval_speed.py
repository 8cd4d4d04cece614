"""Processing time of an evaluation on one core, without a model: `make bench-eval`.

Measures grading and summarizing of 16 synthetic completions for each of GSM8K's test problems; 10,000 bootstrap
resamples of the accuracy; a report of three runs of 300 updates with 1,319 recorded answers at start and end. The
times are CPU seconds, best of three.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grpo_gsm8k.evaluation.predictions import Prediction, graded
from grpo_gsm8k.evaluation.requests import Question
from grpo_gsm8k.evaluation.results import summarize_setting
from grpo_gsm8k.evaluation.statistics import intervals
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.report import collect
from grpo_gsm8k.report.render import render_html, render_markdown
from grpo_gsm8k.report.write_report import build
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.transport.protocol import Completion, GenerateGroup, GroupResult, SamplingSpec
from tests.report import runs as made

ITEMS, SAMPLES, UPDATES, TRIES = 1319, 16, 300, 3
GRADER = Grader(AnswerRules(AnswerFormat.HASH))


class Texts:
    """A stand-in tokenizer: the only token of a completion is the index of its text."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        step = "She sells {0} of them for ${1} each, so {0} * {1} = <<{0}*{1}={2}>>{2} dollars in that week."
        self._texts = []
        for _ in range(ITEMS * SAMPLES):
            pairs = [(rng.randrange(2, 99), rng.randrange(2, 99)) for _ in range(4)]
            steps = [step.format(a, b, a * b) for a, b in pairs]
            self._texts.append("\n".join([*steps, f"#### {rng.choice(('18', '$18.00', '1,234', '17', 'unknown'))}"]))

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """Return the text of a completion."""
        return self._texts[ids[0]]


def main() -> None:
    """Measure and print."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    texts = Texts(seed=0)
    questions = [question(index) for index in range(ITEMS)]
    answers = [answer(index) for index in range(ITEMS)]
    scores_IN = np.random.default_rng(0).random((ITEMS, SAMPLES)) < 0.64

    def grade() -> None:
        predictions: list[Prediction] = []
        for asked, result in zip(questions, answers, strict=True):
            predictions += graded(asked, result, texts, GRADER)
        summarize_setting(("model", "zero_shot", 1.0), predictions, seed=0)

    print(
        f"grading and intervals of {ITEMS} items x {SAMPLES} samples  {best(grade):6.2f} s  (target: under 3)",
        flush=True,
    )
    for name, make in (("percentile", intervals.percentile), ("BCa", intervals.bca)):
        seconds = best(lambda make=make: make(scores_IN, seed=0))  # type: ignore[misc]
        print(f"10,000 bootstrap resamples, {name:10}                {seconds:6.2f} s  (target: under 2)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = [training(Path(folder), name, right) for name, right in (("base", 400), ("a", 900), ("b", 950))]

        def report() -> None:
            page = build(collect.collect(found, None), 2.0, "Report")
            render_html(page)
            render_markdown(page)

        print(f"report of three runs of {UPDATES} updates                 {best(report):6.2f} s  (target: under 10)")


def best(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest of a few tries, which are independent of other load."""
    seconds = []
    for _ in range(TRIES):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def question(index: int) -> Question:
    """Return problem `index`, whose answer is 18."""
    sampling = SamplingSpec(1.0, 1.0, 512, 0, ())
    request = GenerateGroup(str(index), np.zeros(1, np.int32), SAMPLES, sampling, VERSION, True)
    return Question("model", "zero_shot", 1.0, Problem(f"q{index}", "?", "#### 18", "18"), "?", request)


def answer(index: int) -> GroupResult:
    """Return the completions of problem `index`."""
    logprobs = np.full(150, -0.3, np.float32)
    numbers = range(index * SAMPLES, (index + 1) * SAMPLES)
    return GroupResult(
        str(index), tuple(Completion(np.array([number], np.int32), logprobs, "stop", ()) for number in numbers)
    )


def training(folder: Path, name: str, right: int) -> Path:
    """Write a run folder whose validations have as many answers as GSM8K's test set."""
    run = made.training(folder, name, UPDATES)
    for version, known in ((0, right // 2), (UPDATES, right)):
        rows = [
            {
                "prompt_id": f"q{i:04d}",
                "question": f"What is {i} + 1? " * 10,
                "gold": str(i + 1),
                "text": f"It is {i + 1}, and that is what was asked for. " * 10,
                "extracted": str(i + 1),
                "kind": "correct" if (i * 7 + right) % ITEMS < known else made.KINDS[i % 3],
            }
            for i in range(ITEMS)
        ]
        made.pq.write_table(made.pa.Table.from_pylist(rows), run / "validation" / f"step_{version}.parquet")
    return run


if __name__ == "__main__":
    main()
