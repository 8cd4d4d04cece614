"""Ranks that die, hang, go astray or run out of memory: real processes, and an error that names the rank."""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from grpo_gsm8k.errors import MemoryLimitError, UserError
from grpo_gsm8k.learner import update
from grpo_gsm8k.learner.objective import objective
from grpo_gsm8k.learner.rank_process import BLAME_SECONDS, EXIT_SECONDS, start_ranks
from grpo_gsm8k.learner.ranks import RankError
from tests.conftest import patience
from tests.learner.conftest import small_config
from tests.learner.test_oom import CUDA, failing_at
from tests.learner.two_ranks import GRADIENTS, distance, one_update, opened, spec_of, train

pytestmark = pytest.mark.slow


def two_ranks(model: Path, folder: Path, *overrides: str) -> AbstractContextManager[Any]:
    return opened(spec_of(small_config("learner.ranks=2", *overrides), model, folder))


def child() -> psutil.Process:
    (process,) = psutil.Process().children()
    return process


@pytest.mark.parametrize(
    ("number", "text"), [(signal.SIGKILL, "ended with exit code -9"), (signal.SIGSTOP, "is late by")]
)
def test_a_rank_that_does_not_come_is_named(
    number: signal.Signals, text: str, random_model: Path, tmp_path: Path
) -> None:
    limit = patience(5)
    with two_ranks(random_model, tmp_path, f"learner.rank_timeout_s={limit}") as session:
        train(session, range(1))
        rank = child()
        rank.send_signal(number)
        started = time.monotonic()
        with pytest.raises(RankError, match=f"^rank 1 of the learner {text}"):
            train(session, range(1, 2))
        assert time.monotonic() - started < 2 * limit
    assert not rank.is_running()  # a stopped one is ended, too


def test_a_rank_that_hangs_within_an_exchange_of_tensors_is_named(random_model: Path, tmp_path: Path) -> None:
    limit = patience(5)
    with two_ranks(random_model, tmp_path, f"learner.rank_timeout_s={limit}") as session:
        rank = child()
        started = time.monotonic()
        with pytest.raises(RankError, match=r"^rank 1 of the learner did not take part within"):
            session.ranks._sum(torch.ones(3))  # while the other rank waits for work
        assert limit <= time.monotonic() - started < 2 * limit + BLAME_SECONDS
    assert not rank.is_running()


@pytest.mark.more
def test_a_rank_that_does_not_read_is_named(random_model: Path, tmp_path: Path) -> None:
    """A pipe holds 64 KiB, so what is longer waits for the reader."""
    limit = patience(2)
    with two_ranks(random_model, tmp_path, f"learner.rank_timeout_s={limit}") as session:
        child().send_signal(signal.SIGSTOP)
        with pytest.raises(RankError, match=f"^rank 1 of the learner is late by {limit:g} s"):
            session.ranks.announce({"version": "0" * 2**17})


@pytest.mark.more
def test_a_rank_elsewhere_in_the_program_is_an_error(random_model: Path, tmp_path: Path) -> None:
    ranks = start_ranks(spec_of(small_config("learner.ranks=2"), random_model, tmp_path), None)
    with closing(ranks), pytest.raises(RankError, match="rank 1 of the learner is at 'connect', rank 0 at 'totals'"):
        ranks.gather("totals")


@pytest.mark.more
def test_what_a_restart_cannot_fix_is_passed_on(tmp_path: Path) -> None:
    """The model's folder is empty: rank 0 raises the user's error of the rank that finds it first."""
    (tmp_path / "model").mkdir()
    ranks = start_ranks(spec_of(small_config("learner.ranks=2"), tmp_path / "model", tmp_path), None)
    with closing(ranks), pytest.raises(UserError, match=r"^rank 1 of the learner: .*model cannot be loaded"):
        ranks.join([])


def test_weights_that_differ_are_noticed(random_model: Path, tmp_path: Path) -> None:
    with two_ranks(random_model, tmp_path) as session:
        with torch.no_grad():
            session.models.parameters[-1].view(-1)[0] += 1e-3
        with pytest.raises(RankError, match="the weights of rank 1 of the learner differ"):
            train(session, range(1))


def test_ranks_end_with_the_first_one(random_model: Path, tmp_path: Path) -> None:
    with two_ranks(random_model, tmp_path):
        rank = child()
        started = time.monotonic()
    assert not rank.is_running()
    assert time.monotonic() - started < EXIT_SECONDS  # by itself: it waited for work


def test_out_of_memory_within_a_pass_of_a_divided_model_ends_the_run(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_ranks(random_model, tmp_path, "learner.shard=full", "learner.token_budget=60") as session:
        monkeypatch.setattr(update, "objective", failing_at(2, CUDA, objective))
        with pytest.raises(
            MemoryLimitError, match=r"learner\.shard=full a step is not repeated: set learner\.token_bud"
        ):
            train(session, range(1))


@pytest.mark.more
def test_all_ranks_repeat_a_step_that_one_has_no_memory_for(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rank runs out in its second micro-batch; the result is that of one rank with half the budget."""
    budget, step = 80, ("policy_gradient.max_staleness=0",)
    one = one_update(small_config(*step, f"learner.token_budget={budget // 2}"), random_model, tmp_path / "one")
    monkeypatch.setattr(update, "objective", failing_at(2, CUDA, objective))
    words = ("learner.ranks=2", f"learner.token_budget={budget}")
    two = one_update(small_config(*step, *words), random_model, tmp_path / "two")
    assert two.tokens == [budget // 2] * 3
    for left, right in zip(two.gradients, one.gradients, strict=True):
        assert distance(left, right) < GRADIENTS
