"""How many engines a learner can use, estimated rates, and divisions of several GPUs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.planning import memory_plan, plan_report
from grpo_gsm8k.planning.estimated_rates import cpu_engine, gpu_engine, on_gpus
from grpo_gsm8k.planning.memory_plan import Division, MemoryRow, memory_rows
from grpo_gsm8k.planning.plan import make_plan
from grpo_gsm8k.planning.plan_tables import answer, engine_table, memory_table
from grpo_gsm8k.planning.qwen_shapes import QWEN
from grpo_gsm8k.planning.rates import Lengths
from grpo_gsm8k.planning.simulate import simulate
from grpo_gsm8k.preflight import cpu_cost
from grpo_gsm8k.preflight.cost import estimate
from grpo_gsm8k.preflight.cpu_cost import EngineLoad
from grpo_gsm8k.preflight.cpu_rates import CpuRates
from grpo_gsm8k.preflight.devices import by_name
from grpo_gsm8k.preflight.engine_memory import actor_memory
from grpo_gsm8k.preflight.parameters import from_config, from_folder
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT
from tests.planning.pipelines import COMPLETIONS, LENGTH, SEQUENCE_S, STEP_S, config_of, pipeline_of
from tests.preflight.conftest import QWEN_1_5B, QWEN_3B, folder_with

H100 = by_name("h100-80gb")


def test_the_fewest_engines_for_which_the_learner_is_the_limit() -> None:
    """On a GPU an engine runs all that it may: it needs about `one_s` for an update, the learner a fifth of that."""
    slow = pipeline_of(sequence_s=10 * SEQUENCE_S, publish_s=0.0, records_s=0.0)
    one_s = LENGTH * (STEP_S + COMPLETIONS * 10 * SEQUENCE_S)
    learner = replace(slow.learner, token_s=0.0, update_s=one_s / 5)
    plan = make_plan(config_of(1, 4, "actor.device=cuda:0"), replace(slow, learner=learner))
    assert plan.learner_bound in (5, 6)
    assert [row.actors for row in plan.rows] == [1, 2, 4, 8, 16, 32, 64]
    assert plan.rows[0].state.step_s == pytest.approx(one_s, rel=0.02)
    assert plan.rows[-1].state.step_s == pytest.approx(one_s / 5, rel=0.02)
    assert f"With {plan.learner_bound} engines or more the learner is the limit" in answer(plan)


def test_without_overlap_more_engines_are_worth_less_and_less() -> None:
    """A step with one sequence takes half as long as one with ten: a last engine still needs its steps."""
    plan = make_plan(config_of(), pipeline_of())
    assert plan.learner_bound is None
    assert 1 < plan.enough < 16
    assert f"Beyond {plan.enough}, further ones add less than 5%" in answer(plan)


def test_a_cluster_is_planned_for_several_networks() -> None:
    plan = make_plan(config_of(1, 1, "cluster=ray"), pipeline_of(), actors=(1, 4))
    speeds = [[state.updates_per_hour for state in row.over_network] for row in plan.rows]
    assert all(slow < middle <= fast for slow, middle, fast in speeds)
    assert "over 10 Gbit/s" in engine_table(plan)[0]


def test_the_simulation_of_one_engine_agrees_with_the_preflights_formula() -> None:
    """Without overlap, where both are sums: all answers of the same length, and no round is cut short."""
    words = ["policy_gradient.max_staleness=0", "policy_gradient.eval_every=1000", "policy_gradient.save_every=1000"]
    config = load_config(["command=policy_gradient", *words])
    shape = QWEN["1.5B"]
    pipeline = on_gpus(shape, config, H100, H100, "")
    same = replace(pipeline, lengths=Lengths(((320,) * 8,), (320,), TYPICAL_PROMPT))
    memory = actor_memory(shape, config, H100.memory_gib * 2**30, config.actor.gpu_memory)
    expected = estimate(shape, config, 100, memory, (H100, H100), False, None)
    assert simulate(config, same, 3).step_s == pytest.approx(expected.step_s, rel=0.03)


def test_an_engine_on_a_gpu_reads_its_weights_or_computes() -> None:
    config = load_config(["command=policy_gradient"])
    engine, shape = gpu_engine(QWEN["1.5B"], config, H100), QWEN["1.5B"]
    few, many = engine.step(1), engine.step(100_000)
    assert few == pytest.approx(0.006 + 2 * shape.parameters / (0.6 * 3350e9), rel=0.01)
    assert many == pytest.approx(0.006 + 100_000 * 2 * shape.parameters / (0.5 * 989e12), rel=0.01)


def test_an_engine_on_a_cpu_has_the_terms_of_the_preflights_formula() -> None:
    rates = CpuRates(1, 5e10, 6e10, 1e10, 2e9, 3e5)
    config = load_config(["command=policy_gradient", "preset=cpu_demo"])
    shape, prompt, answer_length, answers = from_folder(EMBEDDED_TINY), 33.0, 32.0, 64
    engine = cpu_engine(shape, config, rates, prompt)
    work = EngineLoad(answers, answers, answers, prompt, answer_length, answer_length)
    expected = cpu_cost.generating_s(shape, work, rates, 4)
    mine = answer_length * engine.step(answers) + answers * prompt * engine.prompt_token_s
    assert mine == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("name", "values"), [("1.5B", QWEN_1_5B), ("3B", QWEN_3B)])
def test_shapes_are_those_of_the_models(name: str, values: dict[str, object], tmp_path: Path) -> None:
    assert QWEN[name] == from_config(folder_with(values, tmp_path / "model"))


def test_the_shape_of_7b_is_that_of_the_model(tmp_path: Path) -> None:
    wide = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_hidden_layers": 28}
    untied = {"num_key_value_heads": 4, "tie_word_embeddings": False, "vocab_size": 152064}
    assert QWEN["7B"] == from_config(folder_with({**QWEN_3B, **wide, **untied}, tmp_path / "model"))


def test_divisions_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharding the optimizer saves half of 8 bytes per parameter with 2 ranks, 3/4 with 4."""
    monkeypatch.setattr(memory_plan, "UPDATES", 1)
    words = ["learner.gradient_checkpointing=true", "policy_gradient.episodes_per_update=64"]
    config = load_config(["command=policy_gradient", *words])
    rows = memory_rows(QWEN["1.5B"], config)
    needs = {row.division: row.rank_bytes for row in rows}
    parameters = QWEN["1.5B"].parameters
    for ranks, saved in ((2, 1 / 2), (4, 3 / 4)):
        whole, part = needs[Division(8, ranks, "none")], needs[Division(8, ranks, "optimizer")]
        assert whole - part == pytest.approx(8 * parameters * saved, rel=0.01)
    assert not any(row.division.shard != "none" for row in rows if row.division.ranks == 1)
    small, _, large = next(row for row in rows if row.division.cards == 2).updates_per_hour
    assert small is None
    assert large is not None
    assert "| no " in "\n".join(memory_table(rows))


def test_a_plan_is_printed_as_json_and_as_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    row = MemoryRow(Division(2, 1, "none"), 2.0**30, (None, 10.0, 20.0))
    monkeypatch.setattr(plan_report, "memory_rows", lambda *_: [row])
    monkeypatch.setattr(plan_report, "pin_model", lambda config: config)
    words = ["command=doctor", "doctor.plan=true", "doctor.gpu=l40s", f"model.path={EMBEDDED_TINY}"]
    config = load_config([*words, "policy_gradient.episodes_per_update=16", "policy_gradient.eval_limit=8"])
    assert plan_report.show_plan(config) == 0
    printed = capsys.readouterr().out
    assert "l40s" in printed
    assert "| 64 " in printed
    assert "1.0 GiB" in printed
    as_json = config.model_copy(update={"doctor": config.doctor.model_copy(update={"json_": True})})
    assert plan_report.show_plan(as_json) == 0
    values = json.loads(capsys.readouterr().out)
    assert [found["actors"] for found in values["rows"]] == [1, 2, 4, 8, 16, 32, 64]
    assert values["memory"][0]["updates_per_hour"] == [None, 10.0, 20.0]


def test_a_run_to_plan_from_needs_a_plan() -> None:
    with pytest.raises(UserError, match=r"doctor\.plan=true"):
        load_config(["command=doctor", "doctor.plan_from=latest"])
