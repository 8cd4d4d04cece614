"""What of the configuration reaches vLLM's engine."""

from __future__ import annotations

import pytest

from cli import load_config
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.runtime.actor_process import engine_spec

ONE_GPU = ("preset=one_gpu", "policy_gradient.max_staleness=0", "actor.sleep_between_updates=true")


@pytest.mark.slow  # it imports vLLM
@pytest.mark.parametrize(
    ("words", "sleeps"),
    [
        (("command=policy_gradient", *ONE_GPU), True),
        (("command=policy_gradient", "preset=one_gpu"), False),
        (("command=eval", "eval.model_path=embedded:tiny", *ONE_GPU), False),  # there is no learner that could use it
    ],
)
def test_an_engine_can_sleep_only_beside_a_learner(words: tuple[str, ...], sleeps: bool) -> None:
    from grpo_gsm8k.actor.engine_arguments import engine_args

    spec = engine_spec(load_config(words), EMBEDDED_TINY, 0, 1)
    assert spec.sleeps is sleeps
    assert engine_args(spec, "module.Extension").enable_sleep_mode is sleeps
