"""Retries of refused requests, and locking of run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation import runner
from grpo_gsm8k.evaluation.generate import Generation, generation_of
from grpo_gsm8k.evaluation.runner import open_run, run_requests
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.transport.protocol import Failed, GenerateGroup, GroupResult, SamplingSpec


def request(name: str) -> GenerateGroup:
    sampling = SamplingSpec(0.0, 1.0, 4, 0, (1,))
    return GenerateGroup(name, np.zeros(2, np.int32), 1, sampling, VERSION, pinned=True)


@pytest.mark.parametrize(
    ("attempts", "answered"), [(1, {"well"}), (2, {"well", "once"}), (3, {"well", "once", "twice"})]
)
def test_refused_requests_are_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attempts: int, answered: set[str]
) -> None:
    refusals = {"well": 0, "once": 1, "twice": 2, "always": 99}
    asked: Counter[str] = Counter()

    class Refusing:
        def __init__(self, *_: Any, spawn: object) -> None: ...

        def __enter__(self) -> Refusing:
            return self

        def __exit__(self, *_: object) -> None: ...

        def wait_until_ready(self) -> None: ...

        def run(self, requests: Sequence[GenerateGroup]) -> Iterator[GroupResult | Failed]:
            for item in reversed(requests):
                asked[item.request_id] += 1
                if asked[item.request_id] <= refusals[item.request_id]:
                    yield Failed(item.request_id, f"refusal {asked[item.request_id]}")
                else:
                    yield GroupResult(item.request_id, ())

    monkeypatch.setattr(runner, "Engines", Refusing)
    config = load_config(["command=eval", "preset=cpu_demo", f"eval.max_attempts={attempts}"])
    taken: list[GroupResult | Failed] = []
    run_requests(config, "model", tmp_path, tmp_path, [request(name) for name in refusals], taken.append)
    assert sorted(result.request_id for result in taken) == sorted(refusals)
    assert {result.request_id for result in taken if isinstance(result, GroupResult)} == answered
    assert asked == {name: min(attempts, refused + 1) for name, refused in refusals.items()}
    errors = [result for result in taken if isinstance(result, Failed)]
    assert all(result.error == f"refusal {attempts}" for result in errors)
    assert generation_of(7, errors[0], None, Grader(config.prompt.answer_rules)) == Generation(
        7, (), f"refusal {attempts}"
    )


def test_nothing_to_ask_starts_no_engine(tmp_path: Path) -> None:
    config = load_config(["command=eval", "preset=cpu_demo"])
    run_requests(config, "model", tmp_path / "none", tmp_path, [], lambda _: pytest.fail("nothing was asked"))


def test_a_run_that_is_going_is_not_resumed_by_a_second_process(tmp_path: Path) -> None:
    words = ("command=eval", "preset=cpu_demo", f"artifacts={tmp_path}")
    with open_run(load_config(words), "file") as run:
        (run.path / "file").touch()
        again = load_config((*words, f"eval.resume_from={run.path}"))
        with pytest.raises(UserError, match=r"eval\.resume_from=.* in use by another process"), open_run(again, "file"):
            pass
    with open_run(again, "file") as same:
        assert same.path == run.path
