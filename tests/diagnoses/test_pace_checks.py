"""Who waits for whom, and which setting would help: recorded runs, and records made from them for other machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grpo_gsm8k.diagnoses.run_record import RunRecord
from tests.diagnoses.recorded_runs import changed, found, recorded, with_settings

KIND = "learner_waits_for_generation"


def test_too_few_sequences_at_once() -> None:
    """`actor.max_num_seqs=4`, for 64 completions of an update."""
    diagnosis = found(recorded("few_seqs"))[KIND]
    assert diagnosis.evidence.startswith(
        "the learner waits 77 % of the time, the engine 0.8 %; 558 tokens/s per engine"
    )
    assert diagnosis.advice.startswith("raise actor.max_num_seqs (now 4, an update has 64 completions per engine)")
    assert diagnosis.severity == "note"


@pytest.mark.parametrize(
    ("settings", "machine", "advice"),
    [
        ({"actor__replicas": 4}, {}, "raise actor.max_num_seqs (now 4, an update has 16 completions per engine)"),
        ({}, {"usable_cores": 8, "container_cpu_limit": "400000 100000"}, "set actor.threads=3 (now 1): 2 of 4 cores"),
        ({}, {"usable_cores": 8, "container_cpu_limit": "max 100000"}, "set actor.threads=7 (now 1)"),
        ({}, {"usable_cores": 8}, "set actor.threads=7 (now 1): 6 of 8 cores are unused"),
        ({"actor__replicas": 2}, {"usable_cores": 9}, "set actor.threads=4 (now 1): 6 of 9 cores are unused"),
        ({"learner__threads": 7}, {"usable_cores": 8}, "raise actor.threads (now 1) and lower learner.threads (now 7)"),
        (
            {"actor__device": "cuda:0", "learner__device": "cuda:1"},
            {"gpus": ["a"] * 4},
            "set actor.replicas=3 (now 1) actor.device=cuda:0 learner.device=cuda:3: this run uses 2 of 4 GPUs",
        ),
        (
            {"actor__device": "cuda:0", "learner__device": "cuda:1", "learner__devices": ["cuda:1", "cuda:2"]},
            {"gpus": ["a"] * 6},
            "set actor.replicas=4 (now 1) actor.device=cuda:0 learner.device=cuda:4 learner.devices=[cuda:4,cuda:5]: "
            "this run uses 3 of 6 GPUs",
        ),
        ({"learner__ranks": 3}, {"usable_cores": 8}, "set actor.threads=5 (now 1): 4 of 8 cores are unused"),
        (
            {"actor__device": "cuda:0", "learner__device": "cuda:0"},
            {"gpus": ["a"] * 4},
            "set actor.replicas=4 (now 1):",
        ),
        ({"actor__device": "cuda:0", "learner__device": "cuda:1"}, {"gpus": ["a"] * 2}, "actor.enforce_eager=false"),
        (  # CUDA_VISIBLE_DEVICES selected two of four
            {"actor__device": "cuda:0", "learner__device": "cuda:1"},
            {"gpus": ["a"] * 4, "usable_gpus": 2},
            "actor.enforce_eager=false",
        ),
    ],
)
def test_the_advice_fits_the_machine(settings: dict[str, Any], machine: dict[str, Any], advice: str) -> None:
    """Constructed: the recorded run on other machines, with enough sequences unless the case is about them."""
    enough = {} if "max_num_seqs" in advice else {"actor__max_num_seqs": 256}
    record = with_settings(replace(recorded("few_seqs"), machine=machine), **enough, **settings)
    assert advice in found(record)[KIND].advice


def test_taking_turns() -> None:
    """Constructed: on-policy, so that overlap helps if the engine waits as well, and only then."""
    record = with_settings(recorded("few_seqs"), policy_gradient__max_staleness=0, actor__max_num_seqs=256)
    assert "actor.threads" in found(record)[KIND].advice  # the engine waits 0.8 %
    turns = changed(record, time__actor_idle_frac=0.55, time__learner_idle_frac=0.45)
    assert found(turns)[KIND].advice.endswith("policy_gradient.max_staleness=1 (now 0)")
    ahead = with_settings(turns, policy_gradient__max_staleness=1)
    assert KIND not in found(ahead)  # nothing that would help is known
    further = changed(ahead, rollout__resampled_prompts=5.0)  # as in the demo with policy_gradient=dapo
    assert found(further)[KIND].advice.startswith("5.0 further prompts in an update are requested only after")


def test_a_learner_without_a_signal_waits_for_nothing() -> None:
    """All groups are tied, so it skips its passes and waits 88 % of the time."""
    record = recorded("wrong_format")
    assert (record.over_time("time/learner_idle_frac") or 0) > 0.8
    assert KIND not in found(record)


def test_validation_of_every_update() -> None:
    """`policy_gradient.eval_every=1` with 400 problems."""
    kinds = found(recorded("every_eval"))
    assert KIND not in kinds
    diagnosis = kinds["validation_blocks_generation"]
    assert "because of 11 validations in 10 updates" in diagnosis.evidence
    assert "raise policy_gradient.eval_every (now 1)" in diagnosis.advice


def test_validations_are_compared_with_updates_that_follow_none() -> None:
    """Constructed: 16 updates of 10 s wait 1 s, those right after the validations of versions 0, 5 and 10 wait 9 s."""
    step = {"time/step_s": 10.0, "rollout/tokens": 100.0}
    waits = {n: 0.9 if n in (1, 6, 11) else 0.1 for n in range(1, 17)}
    updates = [{"step": n, "time/learner_idle_frac": wait, **step} for n, wait in waits.items()]
    validations = [{"version": v, "seconds": 20.0, "n": 10, "length_mean": 10.0} for v in (0, 5, 10)]
    config = {"command": "policy_gradient", "policy_gradient": {"eval_every": 5}}
    assert found(RunRecord(updates, validations, config=config)) == {}  # 16 of 160 s
    slow = [{**u, "time/learner_idle_frac": 0.95 if u["step"] in (1, 2, 6, 7, 11, 12) else 0.0} for u in updates]
    (diagnosis,) = found(RunRecord(slow, validations, config=config)).values()
    assert diagnosis.kind == "validation_blocks_generation"
    # 5 * 9.5 of 160 s: the first update waits for the engine's first completions in any case
    assert diagnosis.evidence.startswith("the learner waits 36 % of the time, 30 % because of 3 validations")


def test_an_engine_that_waits_for_the_learner() -> None:
    """`policy_gradient=ppo` on two cores: the critic doubles the learner's work."""
    record = recorded("ppo_dead")
    assert "actor_waits_for_learner" not in found(record)  # the engine waits 48 %
    waiting = changed(record, time__actor_idle_frac=0.7)
    assert found(waiting)["actor_waits_for_learner"].advice.startswith(
        "add cores, and raise learner.threads by as many (now 1, on 2 cores"
    )
    on_gpu = with_settings(waiting, learner__device="cuda:0", learner__token_budget=64)
    assert "raise learner.token_budget (now 64)" in found(on_gpu)["actor_waits_for_learner"].advice
    checkpointing = with_settings(on_gpu, learner__gradient_checkpointing=True)
    assert "learner.gradient_checkpointing=false" in found(checkpointing)["actor_waits_for_learner"].advice


def test_memory_that_ran_out() -> None:
    """Constructed: the demo's model does not fill a CPU's memory."""
    event = {"kind": "out_of_memory", "token_budget": 2048, "reason": "CUDA out of memory"}
    record = recorded("good")
    diagnosis = found(replace(record, events=[event | {"token_budget": 4096}, event]))["memory_budget_halved"]
    assert diagnosis.evidence == "out of memory 2 times: the micro-batch was halved from 8192 to 2048 tokens"
    assert "learner.token_budget=2048" in diagnosis.advice
    metric = found(changed(record, learner__oom_halvings=1.0))["memory_budget_halved"]
    assert "from 8192 to 4096 tokens" in metric.evidence
    bare = RunRecord([{"learner/oom_halvings": 1.0}])
    assert found(bare)["memory_budget_halved"].severity == "warning"


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("exit code -9", "actor.progress_timeout_s"),
        ("not ready after 4 s", "actor.start_timeout_s"),
        ("RankError: rank 1 of the learner is late by 300 s", "learner.rank_timeout_s"),
    ],
)
def test_a_worker_that_was_replaced(reason: str, key: str) -> None:
    """Constructed, with reasons as the supervisor records them."""
    events = [{"kind": "actor_restarted", "worker": "actor 0", "reason": reason, "restart": 1}]
    diagnosis = found(RunRecord([], events=events))["workers_restarted"]
    assert reason in diagnosis.evidence
    assert diagnosis.advice.endswith(key)
