"""Rates that are read from a run: from a simulated one whose rates are known, and from a real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.rates import Pipeline
from grpo_gsm8k.planning.recorded_rates import RecordedRun, fitted_pipeline, read_run
from grpo_gsm8k.planning.simulate import SimulatedRun, Size, predict, simulate
from grpo_gsm8k.planning.steady_state import TimedSpan, recorded_spans, steady_state
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.saved_config import read_config
from tests.conftest import Cli
from tests.planning.pipelines import config_of, pipeline_of

TRUE = pipeline_of(load_s=0.1, verify_s=0.05, message_s=0.01)


def recorded(max_staleness: int, pipeline: Pipeline = TRUE) -> RecordedRun:
    """What a run with these rates leaves behind; its loads are spans of their own, as in a real trace."""
    config = config_of(1, max_staleness, "policy_gradient.updates=16")
    return RecordedRun("made", config, with_loads(SimulatedRun(config, pipeline).run(), pipeline), pipeline.lengths)


def with_loads(spans: list[TimedSpan], pipeline: Pipeline) -> list[TimedSpan]:
    """Move the time of each swap from the simulated generation that follows it into its own span."""
    load_s = pipeline.engine.load_s
    loads = [span.start_s for span in spans if span.name == "load"]
    found = []
    for span in spans:
        if span.name == "load":
            span = replace(span, seconds=load_s)
        elif span.name == "generate" and any(span.start_s == pytest.approx(start) for start in loads):
            span = replace(span, start_s=span.start_s + load_s, seconds=span.seconds - load_s)
        found.append(span)
    return found


def guess() -> Pipeline:
    """The true shares of step and sequences in an engine that is three times too fast, and nothing else."""
    wrong = pipeline_of(token_s=0.0, publish_s=0.0, records_s=0.0, verify_s=0.05)
    return replace(wrong, engine=wrong.engine.slower(1 / 3))


def test_the_rates_of_a_run_without_overlap_are_found_again() -> None:
    found = fitted_pipeline(recorded(0), guess())
    assert found.engine.step_s == pytest.approx(TRUE.engine.step_s, rel=0.02)
    assert found.engine.load_s == pytest.approx(TRUE.engine.load_s)
    assert found.engine.verify_s == pytest.approx(TRUE.engine.verify_s, rel=0.05)
    assert found.learner.token_s == pytest.approx(TRUE.learner.token_s)
    assert found.learner.publish_s == pytest.approx(TRUE.learner.publish_s)
    assert found.network.message_s == pytest.approx(TRUE.network.message_s)
    assert "made" in found.source


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
@pytest.mark.parametrize("size", [Size(1, 1, 0), Size(2, 1, 0), Size(1, 1, 2), Size(4, 2, 1)])
def test_a_run_foretells_those_of_other_sizes(max_staleness: int, size: Size) -> None:
    config = config_of(1, max_staleness)
    found = fitted_pipeline(recorded(max_staleness), guess())
    assert predict(config, found, size).step_s == pytest.approx(predict(config, TRUE, size).step_s, rel=0.03)


def test_a_short_run_is_refused() -> None:
    spans = SimulatedRun(config_of(1, 1, "policy_gradient.updates=4"), TRUE).run()
    with pytest.raises(UserError, match="at least 5 updates, and this one has 4"):
        steady_state(spans, 1, 1)


def test_a_damaged_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text("[")
    with pytest.raises(UserError, match=r"trace\.json cannot be read"):
        recorded_spans(RunFolder(tmp_path))


def test_a_run_without_rollouts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep_rollouts"):
        read_run(RunFolder(tmp_path), config_of(), 50.0)


def test_another_command_is_refused(tmp_path: Path) -> None:
    config = config_of().model_copy(update={"command": "sft"})
    with pytest.raises(UserError, match="command=sft"):
        read_run(RunFolder(tmp_path), config, 50.0)


SMALL = ["actor.engine=scripted", "actor.max_model_len=512", "policy_gradient.max_new_tokens=380"]
FEW = ["policy_gradient.episodes_per_update=32", "policy_gradient.group_size=4", "policy_gradient.kl.coef=0.01"]
LENGTH = ["policy_gradient.updates=12", "policy_gradient.eval_every=100", "policy_gradient.save_every=100"]


@pytest.mark.slow
@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_real_run_takes_as_long_as_its_simulation(max_staleness: int, cli: Cli) -> None:
    """The scripted engine sleeps most of its time, so a loaded machine does little to it.

    Rates from the run itself: that the phases fit together as in the simulation is what is tested. 30 % are allowed for
    the updates of a run on a loaded machine, of which some take several times as long as others.
    """
    done = cli.run(
        "command=policy_gradient", "preset=cpu_demo", "tracker=[]", *SMALL, *FEW, *LENGTH,
        f"policy_gradient.max_staleness={max_staleness}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = RunFolder(cli.runs()[-1])
    run = read_run(folder, read_config(folder), 60.0)
    found = fitted_pipeline(run, replace(guess(), lengths=run.lengths))
    again = simulate(run.config, found)
    assert again.step_s == pytest.approx(run.measured.step_s, rel=0.3)
    assert again.learner_idle == pytest.approx(run.measured.learner_idle, abs=0.25)

    planned = cli.run("command=doctor", "doctor.plan=true", "doctor.plan_from=latest", "doctor.json=true")
    assert planned.returncode == 0, planned.stderr
    values = json.loads(planned.stdout)
    assert values["rows"][0]["updates_per_hour"] == pytest.approx(3600 / again.step_s, rel=0.3)
    assert folder.path.name in values["source"]
