"""Predicted times on a CPU, term by term, against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli import load_config
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight import cost, cpu_cost
from grpo_gsm8k.preflight.cpu_cost import EngineLoad, UpdateLoad
from grpo_gsm8k.preflight.cpu_rates import CpuRates, MachineRates
from grpo_gsm8k.preflight.cpu_times import CpuTimes, passes_of
from grpo_gsm8k.preflight.diagnosis import diagnose
from grpo_gsm8k.preflight.parameters import from_weights
from tests.preflight.conftest import CPU

SHAPE = from_weights(EMBEDDED_TINY)
NEVER = 1e30  # operations of this rate take no time
FREE = CpuRates(1, NEVER, NEVER, NEVER, NEVER, NEVER)
RATES = MachineRates(CpuRates(1, 7e10, 8e10, 1.3e10, 1e9, 2.9e5), CpuRates(2, 1.2e11, 1.4e11, 2e10, 1.8e9, 2.9e5))
ANSWERS = EngineLoad(answers=256, prompts=32, at_once=64, prompt=40, answer=20, longest=48)
PASSES = UpdateLoad(
    tokens=1000,
    predicted=800,
    context=50,
    microbatches=2,
    steps=1,
    trained=SHAPE.parameters,
    tensors=28,
    training=1,
    forward=0,
    frozen=False,
    recomputed=False,
)


def test_the_steps_of_an_engine_are_those_of_full_places_and_of_the_last_answer() -> None:
    """256 answers of 20 tokens in 64 places take 80 steps, and the longest one 28 more."""
    seconds = cpu_cost.generating_s(SHAPE, ANSWERS, replace(FREE, reading=1e6), 4)
    assert seconds == pytest.approx((80 + 28) * 4 * SHAPE.parameters / 1e6)


def test_answers_share_whole_blocks_of_their_prompt() -> None:
    """Of 40 tokens the first 32 are computed once per prompt, the other 8 for each answer."""
    seconds = cpu_cost.generating_s(SHAPE, ANSWERS, replace(FREE, learning=1e9), 4)
    per_token = 2 * SHAPE.linear + 2 * SHAPE.layers * SHAPE.query * 40
    assert seconds == pytest.approx((32 * 32 + 256 * 8) * per_token / 1e9)


def test_arithmetic_of_an_update() -> None:
    """Three products per weight and token, one more of the head, and attention."""
    attention = 3 * 4 * SHAPE.layers * SHAPE.query * 50 * 1000
    full = cpu_cost.learning_s(SHAPE, PASSES, replace(FREE, learning=1e9))
    assert full == pytest.approx((6 * SHAPE.linear * 1000 + 8 * SHAPE.head * 800 + attention) / 1e9)
    frozen = cpu_cost.learning_s(SHAPE, replace(PASSES, frozen=True), replace(FREE, learning=1e9))
    assert full - frozen == pytest.approx((2 * SHAPE.linear * 1000 + 2 * SHAPE.head * 800) / 1e9)
    forward = cpu_cost.learning_s(SHAPE, replace(PASSES, training=0, forward=1), replace(FREE, learning=1e9))
    assert forward == pytest.approx((2 * SHAPE.linear * 1000 + 2 * SHAPE.head * 800 + attention / 3) / 1e9)


def test_passes_of_a_method() -> None:
    """PPO: two epochs of policy and critic, and the critic's values before them."""
    words = ["command=policy_gradient", "preset=cpu_demo"]
    grpo, ppo = (passes_of(SHAPE, load_config([*words, *more]), 30) for more in ((), ("policy_gradient=ppo",)))
    assert (grpo.training, grpo.forward, grpo.steps, grpo.microbatches) == (1, 0, 1, 2)
    assert (ppo.training, ppo.forward, ppo.steps, ppo.microbatches) == (4, 1, 16, 4)
    assert ppo.tokens == grpo.tokens
    selecting = passes_of(
        SHAPE, load_config([*words, "policy_gradient=kl_cov", "policy_gradient.epochs_per_batch=2"]), 30
    )
    assert (selecting.training, selecting.forward) == (2, 2)  # a choice of tokens before each step
    large = replace(SHAPE, parameters=3 * SHAPE.parameters)
    taught = passes_of(replace(SHAPE, teacher=large), load_config([*words, "policy_gradient=distill"]), 30)
    assert (taught.training, taught.forward) == (1, 3)  # the teacher's pass, in passes of the policy


def test_an_untrained_model_generates_to_the_limit() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo"]
    trained, untrained = (
        CpuTimes(SHAPE, load_config([*words, *more]), RATES, RATES, 30) for more in ((), ("model.init=random",))
    )
    assert untrained.generating_s(1) > trained.generating_s(1)


def test_a_run_takes_as_long_as_its_slower_side_or_as_both() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo"]
    config = load_config(words)
    times = CpuTimes(SHAPE, config, RATES, RATES, 30)
    made = diagnose(SHAPE, config, CPU, 30, 30, times).estimate
    assert made.step_s == max(times.generating_s(1), times.learning_s(1))
    engine = 30 * times.generating_s(1) + times.validating_s(4 * 512, 1)  # at 0, 10, 20 and 30
    assert made.hours * 3600 == pytest.approx(cost.START_ON_CPU_S + engine)
    turns = load_config([*words, "policy_gradient.max_staleness=0"])
    alternating = diagnose(SHAPE, turns, CPU, 30, 30, CpuTimes(SHAPE, turns, RATES, RATES, 30)).estimate
    assert alternating.step_s == pytest.approx(times.generating_s(1) + times.learning_s(1))


def test_the_tiny_model_takes_what_was_measured() -> None:
    """Alone on one core: the engine 256 x 48 tokens in 1.45 s, the learner 7104 tokens in 0.52 s, PPO in 2.04 s."""
    one = RATES.one
    engine = cpu_cost.generating_s(SHAPE, EngineLoad(256, 32, 256, 30, 48, 48), one, 4)
    assert engine == pytest.approx(1.45, rel=0.25)
    update = replace(PASSES, tokens=7104, predicted=6400, microbatches=1)
    assert cpu_cost.learning_s(SHAPE, update, one) == pytest.approx(0.52, rel=0.25)
    ppo = replace(update, training=4, steps=4, microbatches=1)  # two epochs of two models, one step each
    assert cpu_cost.learning_s(SHAPE, ppo, one) == pytest.approx(2.04, rel=0.25)
