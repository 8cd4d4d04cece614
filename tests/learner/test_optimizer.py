"""Schedule, the guard against non-finite gradients, and the optimizer's state by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import get_scheduler

from grpo_gsm8k.config import Schedule
from grpo_gsm8k.errors import NonFiniteError
from grpo_gsm8k.learner import optimizer as optimizer_module
from grpo_gsm8k.learner.model import Policy
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Decay, lr_scale
from tests.learner.conftest import small_config


def test_warm_up_then_cosine() -> None:
    scales = [lr_scale(u, 11, 2, Decay(0.1)) for u in range(11)]
    assert scales[:3] == [0.5, 1.0, 1.0]
    assert scales[10] == pytest.approx(0.1)  # the last update
    assert scales[6] == pytest.approx(0.55)  # half of the cosine: (1 + 0.1) / 2
    assert scales[2:] == sorted(scales[2:], reverse=True)


def transformers_scales(schedule: str, total: int, warmup: int, **given: object) -> list[float]:
    """Return the factors of one of transformers' schedulers for steps 0 to total."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(schedule, optimizer, warmup, total, scheduler_specific_kwargs=given or None)
    scales = []
    for _ in range(total + 1):
        scales.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return scales


@pytest.mark.parametrize(("total", "warmup"), [(20, 4), (20, 0), (7, 1)])
def test_schedules_equal_those_of_transformers(total: int, warmup: int) -> None:
    """Ours reach the floor in the last update and theirs one step later; our first warm-up step is not 0."""

    def ours(decay: Decay) -> list[float]:
        return [lr_scale(update, total, warmup, decay) for update in range(total)]

    linear = transformers_scales("linear", total - 1, warmup)
    assert ours(Decay(0.0, "linear"))[warmup:] == pytest.approx(linear[warmup:])
    assert ours(Decay(0.25, "linear"))[warmup:] == pytest.approx([0.25 + 0.75 * s for s in linear[warmup:]])
    assert ours(Decay(0.25, "linear"))[-1] == 0.25
    cosine = transformers_scales("cosine", total - 1, warmup)
    assert ours(Decay(0.0))[warmup:] == pytest.approx(cosine[warmup:])
    assert ours(Decay(0.5, "constant"))[warmup:] == [1.0] * (total - warmup)
    schedules: list[Schedule] = ["linear", "constant", "cosine", "wsd"]
    for schedule in schedules:
        assert ours(Decay(0.1, schedule))[:warmup] == [(update + 1) / max(1, warmup) for update in range(warmup)]
    given = {"num_decay_steps": round(0.4 * total), "decay_type": "linear", "min_lr_ratio": 0.1}
    wsd = transformers_scales("warmup_stable_decay", total, warmup, **given)
    assert ours(Decay(0.1, "wsd", 0.4))[warmup:] == pytest.approx(wsd[warmup + 1 :])


def test_a_decay_longer_than_the_run_begins_after_the_warm_up() -> None:
    scales = [lr_scale(update, 10, 4, Decay(0.0, "wsd", 1.0)) for update in range(10)]
    assert scales[4:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


@pytest.mark.parametrize("total", [1, 2, 3])
def test_warm_up_is_never_longer_than_the_run(total: int) -> None:
    scales = [lr_scale(u, total, 100, Decay(0.1)) for u in range(total)]
    assert scales[-1] == 1.0


def _set_gradients(policy: Policy, value: float) -> None:
    for _, p in policy.named_parameters():
        p.grad = torch.full_like(p, 1e-3)
    policy.named_parameters()[3][1].grad.view(-1)[5] = value


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_touches_nothing_and_several_stop_the_run(policy: Policy, bad: float) -> None:
    optimizer = Optimizer(policy.named_parameters(), small_config("learner.max_nonfinite_steps=2").learner)
    _set_gradients(policy, 1e-3)
    assert not optimizer.step(1e-3).skipped
    weights = {name: p.detach().clone() for name, p in policy.named_parameters()}
    state = {name: t.clone() for name, t in optimizer.state_tensors().items()}
    _set_gradients(policy, bad)
    assert optimizer.step(1e-3).skipped
    assert all(torch.equal(weights[name], p) for name, p in policy.named_parameters())
    assert all(torch.equal(state[name], t) for name, t in optimizer.state_tensors().items())
    _set_gradients(policy, 1e-3)
    assert not optimizer.step(1e-3).skipped  # a good one in between starts the count anew
    _set_gradients(policy, bad)
    optimizer.step(1e-3)
    _set_gradients(policy, bad)
    with pytest.raises(NonFiniteError, match="2 optimizer steps in a row"):
        optimizer.step(1e-3)


def test_state_round_trip_is_bitwise(policy: Policy) -> None:
    config = small_config().learner
    first = Optimizer(policy.named_parameters(), config)
    _set_gradients(policy, 1e-3)
    first.step(1e-3)
    second = Optimizer(policy.named_parameters(), config)
    second.load_state_tensors({name: t.clone() for name, t in first.state_tensors().items()})
    weights = [p.detach().clone() for _, p in policy.named_parameters()]
    results = []
    for optimizer in (first, second):
        for (_, p), weight in zip(policy.named_parameters(), weights, strict=True):
            p.data.copy_(weight)
        _set_gradients(policy, 1e-3)
        optimizer.step(1e-3)
        results.append([p.detach().clone() for _, p in policy.named_parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_checkpoint_of_the_plain_step_continues_with_the_fused_one_and_back(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between CPU and GPU; torch's fused step for CPUs stands in for that of GPUs."""
    config, weights = small_config().learner, [p.detach().clone() for _, p in policy.named_parameters()]

    def steps(*fused: bool) -> list[torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for (_, p), weight in zip(policy.named_parameters(), weights, strict=True):
            p.data.copy_(weight)
        for fuse in fused:
            monkeypatch.setattr(optimizer_module, "_adamw", lambda *_, f=fuse: partial(torch.optim.AdamW, fused=f))
            optimizer = Optimizer(policy.named_parameters(), config)
            optimizer.load_state_tensors(state)
            _set_gradients(policy, 1e-3)
            optimizer.step(1e-3)
            state = optimizer.state_tensors()
        return [p.detach().clone() for _, p in policy.named_parameters()]

    expected = steps(False, False, False)
    for kinds in ((False, True, True), (True, False, False), (True, True, True)):
        for found, wanted in zip(steps(*kinds), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_no_decay_for_vectors_and_embeddings(policy: Policy) -> None:
    optimizer = Optimizer(policy.named_parameters(), small_config("learner.weight_decay=0.5").learner)
    for _, p in policy.named_parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimizer.step(1e-1)
    changed = {name for name, p in policy.named_parameters() if not torch.equal(before[name], p)}
    assert changed
    assert all("proj" in name and name.endswith("weight") for name in changed)
