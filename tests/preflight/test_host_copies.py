"""Host memory of a run, against the sizes of the tensors themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cli import load_config
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight.checks import Status, space_lines
from grpo_gsm8k.preflight.fit import evaluate_fit
from grpo_gsm8k.preflight.host_copies import HostCopies, host_copies
from grpo_gsm8k.preflight.parameters import ModelShape, from_weights
from tests.preflight.conftest import MACHINE


def copies(shape: ModelShape, *words: str) -> HostCopies:
    return host_copies(shape, load_config(["command=policy_gradient", *words]))


def test_page_locked_copies_are_rounded_up_to_powers_of_two(shape_1_5b: ModelShape) -> None:
    kept = copies(shape_1_5b).published
    gate = 2 ** torch.tensor(1536 * 8960 * 2.0).log2().ceil().item()  # 26.25 MiB: 32 MiB
    others = 2 * 2**23 + 2 * 2**20  # 1536 x 1536: 4.5 MiB become 8; 1536 x 256: 0.75 MiB become 1
    embedding = 2**29  # 445 MiB
    assert kept == 28 * (3 * gate + others) + embedding
    assert kept > 2 * shape_1_5b.parameters


@pytest.mark.parametrize(
    ("words", "bytes_per_parameter"),
    [
        ((), 0),  # float32 masters are published in place
        (("actor.dtype=bfloat16",), 2),
        (("learner=lora",), 0),  # an adapter is written from the learner's tensors
        (("learner=lora", "actor.lora=merged"), 4),
    ],
)
def test_copies_on_a_cpu(words: tuple[str, ...], bytes_per_parameter: int) -> None:
    shape = from_weights(EMBEDDED_TINY)
    kept = copies(shape, "preset=cpu_demo", *words).published
    assert kept == bytes_per_parameter * shape.parameters


def test_a_checkpoint_copies_state_and_weights_of_what_is_trained() -> None:
    shape = from_weights(EMBEDDED_TINY)
    full = copies(shape, "preset=cpu_demo", "policy_gradient=ppo", "policy_gradient.critic.kind=separate")
    assert (full.saved_state, full.saved_weights) == (16 * shape.parameters, 8 * shape.parameters)
    adapter = copies(shape, "preset=cpu_demo", "learner=lora")
    assert adapter.saved_state == 8 * shape.adapter(16, ["all-linear"])


def test_a_learner_on_the_cpu_needs_its_copies_too() -> None:
    shape, words = from_weights(EMBEDDED_TINY), ["command=policy_gradient", "preset=cpu_demo"]
    needs = {
        dtype: evaluate_fit(shape, load_config([*words, f"actor.dtype={dtype}"]), 2**34, 2**34, True).learner_need
        for dtype in ("float32", "bfloat16")
    }
    assert needs["bfloat16"] - needs["float32"] == 2 * shape.parameters


@pytest.mark.parametrize(
    ("total", "free", "status"), [(256, 200, Status.OK), (32, 30, Status.WARNING), (20, 19, Status.FAILURE)]
)
def test_host_memory_beside_gpus(shape_1_5b: ModelShape, total: float, free: float, status: Status) -> None:
    """Published weights 3.6 GiB kept and three versions of 2.9 GiB; state 11.5 GiB, weights 5.8 GiB in a checkpoint."""
    machine = replace(MACHINE, ram_gib=float(total), ram_free_gib=float(free))
    (line,) = [
        line
        for line in space_lines(machine, load_config(["command=policy_gradient"]), shape_1_5b, 300)
        if line.name == "host memory"
    ]
    assert line.status is status
