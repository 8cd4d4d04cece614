"""Bounds of the configuration: every numeric key refuses what is not a finite number."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel

from grpo_gsm8k.command_line.loading import load_config
from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.orchestrator import overrides
from grpo_gsm8k.tracking.saved_config import compose_values, field_names, section_of


@cache
def defaults() -> dict[str, Any]:
    return compose_values(["command=policy_gradient"])


def annotation(key: str) -> str:
    kind: type[BaseModel] = Config
    *sections, last = key.split(".")
    for part in sections:
        kind = section_of(kind, field_names(kind)[part]) or kind
    return str(kind.model_fields[field_names(kind)[last]])


NUMERIC = [key for key in overrides.all_keys() if any(word in annotation(key) for word in ("int", "float"))]
ODD = [float("nan"), float("inf"), -float("inf"), True]


def refused(key: str, value: object) -> bool:
    values = copy.deepcopy(defaults())
    overrides.set_value(values, key, value)
    with pytest.raises(UserError) as error:
        parse_config(values)
    return str(error.value).startswith(key) and "\n" not in str(error.value)


def test_every_numeric_key_refuses_what_is_not_finite() -> None:
    assert len(NUMERIC) > 100
    for key in NUMERIC:
        old = overrides.value_at(defaults(), key)
        for odd in ODD:
            if isinstance(old, dict):
                given: object = {**old, "correct": odd}
            elif "list" in annotation(key) or isinstance(old, list):
                given = [odd, *list(old)[1:]]
            else:
                given = odd
            if key not in ("data.params", "data.where") or odd is not True:  # whose values may be true or false
                assert refused(key, given), (key, given)


def test_every_number_has_a_bound() -> None:
    """A value of -10**9 makes no sense, except for weights of rewards, parameters of generators, values of columns."""
    for key in NUMERIC:
        old = overrides.value_at(defaults(), key)
        if key not in ("data.params", "data.where", "policy_gradient.rewards"):
            low: object = [-(10**9), *list(old)[1:]] if isinstance(old, list) else -(10**9)
            assert refused(key, low), key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learner.betas", [0.9, 1.0]),
        ("learner.betas", [-0.1, 0.9]),
        ("learner.betas", [0.9]),
        ("policy_gradient.eval_limit", 0),
        ("policy_gradient.eval_limit", -3),
        ("sft.eval_limit", 0),
        ("eval.limit", 0),
        ("policy_gradient.updates", 1.5),
        ("actor.cores", [-1]),
        ("seed", 2**23),
    ],
)
def test_out_of_bounds(key: str, value: object) -> None:
    assert refused(key, value)


@pytest.mark.parametrize(("coef", "place", "right"), [(0.1, "loss", False), (0.0, "loss", True), (0.1, "reward", True)])
def test_k1_in_the_loss_is_refused(coef: float, place: str, right: bool) -> None:
    values = copy.deepcopy(defaults())
    values["policy_gradient"]["kl"] |= {"coef": coef, "place": place, "estimator": "k1"}
    if right:
        parse_config(values)
        return
    with pytest.raises(UserError, match=r"expected gradient of zero: set policy_gradient.kl.estimator=k2"):
        parse_config(values)


@pytest.mark.parametrize(
    ("actor", "suite", "fix"),
    [(0.74, 0.2, ""), (0.8, 0.2, "actor.gpu_memory=0.74"), (0.5, 0.5, "actor.gpu_memory=0.44"), (0.1, 0.95, "suite")],
)
def test_shares_of_two_engines(actor: float, suite: float, fix: str) -> None:
    values = compose_values(["command=policy_gradient", "policy_gradient.regression_suite.tasks=[arc_easy]"])
    values["actor"]["gpu_memory"] = actor
    values["policy_gradient"]["regression_suite"]["gpu_memory"] = suite
    if not fix:
        parse_config(values)
        return
    with pytest.raises(UserError, match=f"more than 0.94, beyond which .*: set .*{fix}.*$"):
        parse_config(values)


@pytest.mark.parametrize(
    ("command", "actor", "learner", "replicas", "fix"),
    [
        ("policy_gradient", "cuda:0", "cuda:1", 2, "learner.device=cuda:2"),
        ("sft", "cuda:0", "cuda:1", 4, "learner.device=cuda:4"),
        ("policy_gradient", "cuda:2", "cuda:3", 2, "learner.device=cuda:4"),
        ("policy_gradient", "cuda:0", "cuda:2", 2, ""),
        ("policy_gradient", "cuda:1", "cuda:0", 2, ""),
        ("policy_gradient", "cuda:0", "cuda:0", 2, ""),  # the first engine shares the GPU on purpose
        ("eval", "cuda:0", "cuda:1", 2, ""),  # there is no learner
    ],
)
def test_an_engine_on_the_learners_gpu_is_refused(
    command: str, actor: str, learner: str, replicas: int, fix: str
) -> None:
    values = compose_values([f"command={command}"])
    values["actor"] |= {"device": actor, "replicas": replicas}
    values["learner"]["device"] = learner
    if not fix:
        parse_config(values)
        return
    with pytest.raises(UserError, match=f"set {fix}$"):
        parse_config(values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learner.ranks=2"], r"set learner\.devices=\[cuda:1,cuda:2\] and learner\.ranks=1$"),
        (["learner.devices=[cuda:1,cuda:1]"], "name each once$"),
        (["learner.devices=[cuda:2,cuda:3]"], r"set learner\.device=cuda:2$"),
        (["learner.devices=[cuda:1,cuda:2]", "learner.ranks=2"], r"set learner\.ranks=1$"),
        (["learner.devices=[cuda:1,cuda:0]"], r"learner\.devices has cuda:0, the GPU of an engine"),
        (["learner.devices=[cuda:1,cpu]"], r"^learner\.devices\.1: .*cuda"),
        (["preset=one_gpu", "learner.devices=[cuda:0,cuda:1]"], r"learner\.devices has cuda:0, the GPU of an engine"),
        (["preset=cpu_demo", "learner.devices=[cuda:0,cuda:1]"], r"set learner\.ranks=N"),
        (["preset=cpu_demo", "learner.ranks=2", "learner.rank_timeout_s=600"], r"lower learner\.rank_timeout_s$"),
        *(
            (["learner.devices=[cuda:1,cuda:2]", "learner.shard=full", words], r"set learner\.shard=none$")
            for words in ("learner=lora", "learner.optimizer=adamw_8bit", "learner.compile=true")
        ),
        (["learner.shard=optimizer"], r"no effect with one rank: set learner\.shard=none$"),
    ],
)
def test_ranks_that_cannot_work_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(["command=policy_gradient", *words])


def test_devices_of_ranks() -> None:
    words = ["command=policy_gradient", "learner.devices=[cuda:1,cuda:2]", "learner.threads=4"]
    learner = load_config(words).learner
    assert (learner.rank_devices, learner.all_threads) == (["cuda:1", "cuda:2"], 8)
    learner = load_config(["command=policy_gradient", "preset=cpu_demo", "learner.ranks=3"]).learner
    assert (learner.rank_devices, learner.all_threads) == (["cpu"] * 3, 3)


@pytest.mark.parametrize(
    ("words", "sequences"),
    [
        (["command=policy_gradient"], 512),  # one round for the 512 completions of an update
        (["command=policy_gradient", "actor.replicas=2", "learner.device=cuda:2"], 256),
        (["command=policy_gradient", "policy_gradient.episodes_per_update=4096"], 1024),
        (["command=policy_gradient", "preset=cpu_smollm2", "actor.max_num_seqs=auto"], 256),
        (["command=eval"], 512),
        (["command=policy_gradient", "actor.max_num_seqs=7"], 7),
    ],
)
def test_sequences_that_run_at_once(words: list[str], sequences: int) -> None:
    assert load_config(words).actor.max_num_seqs == sequences


def test_async_scheduling_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"set actor\.async_scheduling=false"):
        load_config(["command=policy_gradient", "preset=cpu_demo", "actor.async_scheduling=true"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preset=cpu_demo", "policy_gradient.max_staleness=0"], r"set actor\.sleep_between_updates=false"),
        (["preset=one_gpu"], r"policy_gradient\.max_staleness=0"),
        (["policy_gradient.max_staleness=0"], "preset=one_gpu"),
        (["preset=one_gpu", "policy_gradient.max_staleness=0", "actor.async_scheduling=true"], "in flight"),
        (["command=sft", "preset=one_gpu", "policy_gradient.max_staleness=0"], "command=policy_gradient"),
    ],
)
def test_an_engine_sleeps_only_where_the_learner_waits_for_it(words: list[str], message: str) -> None:
    sleeps = "actor.sleep_between_updates=true"
    with pytest.raises(UserError, match=message):
        load_config(["command=policy_gradient", *words, sleeps])
    possible = ["command=policy_gradient", "preset=one_gpu", "policy_gradient.max_staleness=0", sleeps]
    assert load_config(possible).actor.sleep_between_updates


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["policy_gradient.max_staleness=0"], r"max_staleness=0.*policy_gradient\.max_staleness=1 or more"),
        (["policy_gradient.updates=null", "policy_gradient.epochs=2"], r"epochs=2 .*late=(drop|partial).*updates=N"),
        (["learner.deterministic=true"], r"depend on timing: set policy_gradient\.late=wait"),
    ],
)
@pytest.mark.parametrize("late", ["drop", "partial"])
def test_late_completions_have_no_place_where_batches_may_not_depend_on_timing(
    late: str, words: list[str], message: str
) -> None:
    start = ["command=policy_gradient", "preset=cpu_demo", *words]
    load_config(start)
    with pytest.raises(UserError, match=message):
        load_config([*start, f"policy_gradient.late={late}"])


def test_partial_completions_need_weights_that_running_requests_get() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo", "learner=lora", "policy_gradient.late=partial"]
    with pytest.raises(UserError, match=r"set actor\.lora=merged or policy_gradient\.late=drop"):
        load_config(words)
    load_config([*words, "actor.lora=merged"])
    load_config([*words[:-1], "policy_gradient.late=drop"])


def test_scripted_lengths_need_the_scripted_engine() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo", "actor.scripted_lengths=lognormal"]
    with pytest.raises(UserError, match=r"actor\.engine=scripted"):
        load_config(words)
    load_config([*words, "actor.engine=scripted"])
