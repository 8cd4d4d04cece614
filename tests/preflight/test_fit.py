"""Whether a run fits, the nearest configuration that does, and the engine's needs."""

from __future__ import annotations

import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight import fit
from grpo_gsm8k.preflight.devices import GIB, TABLE, by_name, recognize
from grpo_gsm8k.preflight.engine_memory import checkpoint_bytes, disk_bytes, shm_bytes
from grpo_gsm8k.preflight.fit import Sides, with_overrides
from grpo_gsm8k.preflight.parameters import ModelShape

# Four sequences of at most 384 tokens at a time: with these, a 3B model could be trained on 80 GB but not on 40 GB.
FOUR_OF_384 = ("learner.token_budget=1536", "policy_gradient.max_new_tokens=256", "actor.max_model_len=384")


def configuration(*overrides: str) -> Config:
    return load_config(["command=policy_gradient", *overrides])


def on(name: str, shape: ModelShape, config: Config) -> Sides:
    room = by_name(name).memory_gib * GIB
    return fit.evaluate_fit(shape, config, room, room, shared=config.actor.device == config.learner.device)


def nearest(name: str, shape: ModelShape, config: Config) -> tuple[str, ...] | None:
    room = by_name(name).memory_gib * GIB
    found = fit.nearest(shape, config, room, room, shared=config.actor.device == config.learner.device)
    return found and found.overrides


def test_a_3b_model_in_full_needs_80_gb(shape_3b: ModelShape) -> None:
    config = configuration(*FOUR_OF_384)
    assert not on("a100-40gb", shape_3b, config).fits
    assert on("a100-80gb", shape_3b, config).fits


def test_ranks_need_memory_each(shape_1_5b: ModelShape) -> None:
    """On a CPU all of them share it, on GPUs each has its own with some more for the exchange."""
    cpu = [configuration("preset=cpu_demo", f"learner.ranks={count}") for count in (1, 2, 3)]
    one, two, three = (fit.evaluate_fit(shape_1_5b, config, GIB, GIB, shared=True) for config in cpu)
    assert two.learner_need - one.learner_need == pytest.approx(three.learner_need - two.learner_need)
    assert two.learner_need - one.learner_need == pytest.approx(one.learner.peak + fit.TORCH_ON_CPU)
    gpus = configuration("learner.devices=[cuda:1,cuda:2]")
    more = on("a100-80gb", shape_1_5b, gpus).learner_need - on("a100-80gb", shape_1_5b, configuration()).learner_need
    assert more == pytest.approx(fit.EXCHANGE)
    sharded = fit.with_overrides(gpus, ["learner.shard=optimizer"])
    assert on("a100-80gb", shape_1_5b, sharded).learner.optimizer == pytest.approx(
        on("a100-80gb", shape_1_5b, gpus).learner.optimizer / 2
    )
    divided = on("a100-80gb", shape_1_5b, fit.with_overrides(gpus, ["learner.shard=full"])).learner
    ends = shape_1_5b.parameters - shape_1_5b.linear
    assert divided.weights == pytest.approx(4 * (ends + shape_1_5b.linear / 2))
    assert divided.weights == divided.gradients


@pytest.mark.parametrize("gpu", ["a100-40gb", "a100-80gb", "l40s", "rtx4090"])
def test_what_is_suggested_fits(gpu: str, shape_3b: ModelShape) -> None:
    config = configuration()
    assert not on(gpu, shape_3b, config).fits
    overrides = nearest(gpu, shape_3b, config)
    assert overrides is not None
    assert on(gpu, shape_3b, load_config(["command=policy_gradient", *overrides])).fits


def test_a_smaller_budget_comes_first_and_lora_late(shape_1_5b: ModelShape) -> None:
    large = configuration("learner.token_budget=32768")
    assert nearest("h100-80gb", shape_1_5b, large) == ("learner.token_budget=8192",)
    assert nearest("a100-40gb", shape_1_5b, large)[0] == "learner.gradient_checkpointing=true"  # type: ignore[index]
    small = nearest("rtx4090", shape_1_5b, large)
    assert small is not None
    assert "learner.gradient_checkpointing=true" in small


def test_the_engines_share_and_context_are_changed_too(shape_3b: ModelShape) -> None:
    config = configuration("actor.gpu_memory=0.1", "policy_gradient.max_new_tokens=512", "learner=lora")
    assert nearest("a100-80gb", shape_3b, config) == ("actor.gpu_memory=0.3",)
    assert nearest("l4", shape_3b, config) is not None
    assert fit.nearest(shape_3b, config, 6 * GIB, 6 * GIB, shared=False) is None  # the weights alone have 5.7 GiB


def test_the_presets_fit_the_gpus_they_are_for(shape_1_5b: ModelShape) -> None:
    assert on("h100-80gb", shape_1_5b, configuration()).fits
    assert on("h100-80gb", shape_1_5b, configuration("preset=one_gpu")).fits


def test_one_device_is_shared_by_both(shape_1_5b: ModelShape) -> None:
    room = by_name("h100-80gb").memory_gib * GIB
    config = configuration("preset=one_gpu")
    sides = fit.evaluate_fit(shape_1_5b, config, room, room, shared=True)
    assert sides.learner_room == pytest.approx((0.6 - 0.03) * room + fit.CUDA_CONTEXT)
    assert sides.actor_room == pytest.approx(0.4 * room)
    suite = configuration("preset=one_gpu", "policy_gradient.regression_suite.tasks=[arc_easy]")
    beside = fit.evaluate_fit(shape_1_5b, suite, room, room, shared=True)
    assert beside.learner_room == pytest.approx(sides.learner_room - 0.2 * room)
    assert beside.suite is not None
    assert beside.suite.total == pytest.approx(0.2 * room)


def test_the_learner_may_use_the_memory_of_an_engine_that_sleeps(shape_1_5b: ModelShape) -> None:
    """But what outlasts an update must fit beside the engine when it is awake: 16 bytes per parameter, 23 GiB."""
    words = ["preset=one_gpu", "policy_gradient.max_staleness=0", "learner.token_budget=8192"]
    sleeping = configuration(*words, "actor.sleep_between_updates=true")
    room = by_name("h100-80gb").memory_gib * GIB
    assert not fit.evaluate_fit(shape_1_5b, configuration(*words), room, room, shared=True).learner_fits
    sides = fit.evaluate_fit(shape_1_5b, sleeping, room, room, shared=True)
    assert sides.learner_fits
    assert sides.learner_room == pytest.approx(0.97 * room - 2 * GIB + fit.CUDA_CONTEXT)
    assert sides.learner_room_awake == pytest.approx((0.6 - 0.03) * room + fit.CUDA_CONTEXT)
    large = configuration(*words, "actor.sleep_between_updates=true", "actor.gpu_memory=0.8")
    assert not fit.evaluate_fit(shape_1_5b, large, room, room, shared=True).learner_fits


def test_the_engine_by_hand(shape_1_5b: ModelShape) -> None:
    sides = on("h100-80gb", shape_1_5b, configuration())
    assert sides.actor.cache_per_token == 2 * 28 * 2 * 128 * 2  # keys and values, layers, heads, width, bf16
    assert sides.actor.weights == 2 * shape_1_5b.parameters
    assert sides.actor.sequences == 512  # the completions of an update; the cache holds more
    small = on("rtx4090", shape_1_5b, configuration())
    assert small.actor.sequences == int(small.actor.cache / (28 * 1024 * 4096)) < 256


def test_room_for_weights_and_checkpoints(shape_1_5b: ModelShape) -> None:
    n = shape_1_5b.parameters
    assert shm_bytes(shape_1_5b, configuration()) == 3 * 2 * n  # one pinned by a validation, two published since
    assert checkpoint_bytes(shape_1_5b, configuration()) == 12 * n
    assert disk_bytes(shape_1_5b, configuration(), 300) == 4 * 12 * n  # the last two, the best, the one being written
    assert shm_bytes(shape_1_5b, configuration("learner=lora")) < 0.2 * n
    assert shm_bytes(shape_1_5b, configuration("learner=lora", "actor.lora=merged")) == 6 * n


def test_names_of_gpus() -> None:
    assert recognize("NVIDIA A100-SXM4-40GB", 39.4) == by_name("a100-40gb")
    assert recognize("NVIDIA A100 80GB PCIe", 79.2) == by_name("a100-80gb")
    assert recognize("NVIDIA H100 80GB HBM3", 79.6) == by_name("h100-80gb")
    assert recognize("NVIDIA L40S", 44.5) == by_name("l40s")
    assert recognize("NVIDIA L4", 22.0) == by_name("l4")
    assert recognize("NVIDIA GeForce RTX 4090", 23.9) == by_name("rtx4090")
    assert recognize("NVIDIA A10G", 22.1) == by_name("a10g")
    assert recognize("NVIDIA GeForce GTX 1080", 8.0) is None
    assert len({device.name for device in TABLE}) == len(TABLE)
    with pytest.raises(UserError, match=r"doctor\.gpu=abacus.*l40s"):
        by_name("abacus")


def test_overrides_are_checked(shape_3b: ModelShape) -> None:
    changed = with_overrides(configuration(), ["learner.token_budget=1024", "actor.lora=merged"])
    assert (changed.learner.token_budget, changed.actor.lora) == (1024, "merged")
    with pytest.raises(UserError, match=r"learner\.lora\.enabled"):
        with_overrides(configuration(), ["learner.quantization=nf4"])
