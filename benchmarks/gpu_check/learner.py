"""Step 6: one update of 64 x 8 completions on a model of 1.5B parameters: peak memory, speed, and where time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.flops import as_a_user_counts, computed_once, update_flops
from benchmarks.gpu_check.outcome import require
from benchmarks.gpu_check.small_engine import engine_config, finish, open_engine, open_publisher, requests, until_live
from benchmarks.memory_fit import peak_bytes, start_counting
from benchmarks.update_timing import BatchSize, Learner, largest_load, measure, random_rollouts
from grpo_gsm8k.preflight.memory import learner_memory
from grpo_gsm8k.preflight.parameters import from_weights
from grpo_gsm8k.transport.weights import verify

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

ON_GPU = BatchSize(prompts=64, group=8, prompt_tokens=160, completion_tokens=320)
ON_CPU = BatchSize(prompts=4, group=4, prompt_tokens=16, completion_tokens=24)
MEMORY_ERROR = 0.15  # of the estimate on a GPU; a CPU's measurement includes malloc's fragments and is only recorded
GAP = 0.05  # nats; mean |engine - learner| of bf16 weights and activations


def check(setup: Setup, record: Record) -> None:
    """Measure an update; fail if the memory estimate is off, or if engine and learner differ."""
    config = engine_config(setup, f"learner.token_budget={8192 if setup.cuda else 256}")
    folder = setup.random_model()
    shape = from_weights(folder)
    groups = random_rollouts(ON_GPU if setup.cuda else ON_CPU, shape.vocab)
    before = start_counting()
    learner = Learner(config, folder)
    found = measure(learner, groups, 1, before, peak_bytes)
    once, user = computed_once(groups), as_a_user_counts(groups)
    record("seconds of an update", found.update_s)
    record("forward s", found.split.forward_s)
    record("backward s", found.split.backward_s)
    record("optimizer s", found.split.optimizer_s)
    record("tokens/s, prompts counted once", once.tokens / found.update_s)
    record("tokens/s, prompts counted per completion", user.tokens / found.update_s)
    estimate = learner_memory(shape, config.learner, largest_load(groups, config), reference=False, critic="none").peak
    record("estimated peak MiB", estimate / 2**20)
    record("measured peak MiB", found.peak_bytes / 2**20)
    if setup.cuda:
        _record_mfu(record, update_flops(shape, once, frozen=False) / found.update_s)
    _profile(learner, groups, record)
    off = found.peak_bytes / estimate - 1
    require(not setup.cuda or abs(off) < MEMORY_ERROR, f"the peak differs from preflight's estimate by {off:+.0%}")
    if setup.engine:
        _check_gap(setup, record, learner, config, folder)


def _record_mfu(record: Record, flops_per_s: float) -> None:
    from grpo_gsm8k.preflight.devices import recognize

    properties = torch.cuda.get_device_properties(0)
    device = recognize(properties.name, properties.total_memory / 2**30)
    record("TFLOP/s", flops_per_s / 1e12)
    if device is not None:
        record("MFU", flops_per_s / (device.bf16_tflops * 1e12))


def _profile(learner: Learner, groups: Any, record: Record) -> None:
    """Record the share of attention in the time of all kernels, and on a GPU the share of time without any."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    cuda = learner.models.policy.device.type == "cuda"
    if cuda:
        activities.append(ProfilerActivity.CUDA)
    part = groups[:8]
    with profile(activities=activities) as profiler:
        seconds = learner.update(part)
    events = profiler.key_averages()
    times = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in events}
    total = sum(times.values())
    attention = sum(
        t for key, t in times.items() if any(word in key.lower() for word in ("attention", "flash", "fmha"))
    )
    record("attention, share of the kernels' time", attention / total)
    if cuda:
        record("time without a kernel, share", max(0.0, 1 - total / 1e6 / seconds))


def _check_gap(setup: Setup, record: Record, learner: Learner, config: Any, folder: Any) -> None:
    """Generate with the published weights, and compare with the learner's log-probabilities of the same tokens."""
    from grpo_gsm8k.learner.batching import rollout_sample
    from grpo_gsm8k.learner.logprob_gap import measure_gap
    from grpo_gsm8k.learner.oom import TokenBudget

    policy = learner.models.policy
    ref = open_publisher(setup.folder / "weights", policy, config).publish(1).ref
    torch.cuda.empty_cache()
    engine = open_engine(config, folder)
    engine.load(verify(ref))
    live, _ = until_live(engine)
    record("canary gap", float(live.canary_gap))
    asked = requests(4, 32)
    for request in asked:
        engine.add(request)
    prompts = {request.request_id: request.prompt_ids for request in asked}
    samples = [
        rollout_sample(prompts[result.request_id], c.token_ids, c.logprobs, c.token_ids == c.token_ids)
        for result in finish(engine, len(asked))
        for c in result.completions
    ]
    measured = measure_gap(policy, samples, config, TokenBudget(config.learner.token_budget))
    gap = measured.sums["sync/logprob_gap_mean"] / measured.counts["sync/logprob_gap_mean"]
    record("mean |engine - learner|, nats", gap)
    require(gap < GAP, f"engine and learner differ by {gap:.3g} nat on average")
