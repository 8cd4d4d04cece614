"""All reported numbers of 6 models x 100 questions x 5 temperatures, whose correctness follows a known rule.

The completions pass through the real code: grading, files, summary, report. The expected numbers come from the rule.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from cli import load_config
from grpo_gsm8k.commands.evaluate import write_results
from grpo_gsm8k.evaluation.accuracy import summarize_predictions
from grpo_gsm8k.evaluation.predictions import PredictionFile, graded
from grpo_gsm8k.evaluation.requests import Question
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.report.write_report import report_of_run
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.tracking import manifest, run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.transport.protocol import Completion, GenerateGroup, GroupResult, SamplingSpec

MODELS, ITEMS, TEMPERATURES = range(6), range(100), (0.0, 0.25, 0.5, 0.75, 1.0)
CELLS = [(m, q, t) for m in MODELS for t in range(5) for q in ITEMS]


def right(m: int, q: int, t: int) -> bool:
    if q % 20 in (0, 19):
        return q % 20 == 0  # right for all models, or for none
    return (q * q + 7 * m * q + 5 * t * (m + 1) + q // 9) % 13 < 2 * m


def written_otherwise(m: int, q: int, t: int) -> bool:
    """Return whether the answer is wrong only in its notation."""
    return not right(m, q, t) and (m + q + t) % 7 == 0


def gold(q: int) -> int:
    return 1000 + 37 * q


def text(m: int, q: int, t: int) -> str:
    if right(m, q, t):
        return f"So it is #### {gold(q):,}"
    number = f"{gold(q):,}".replace(",", ".") if written_otherwise(m, q, t) else str(gold(q) + 1 + t)
    return f"So it is #### {number}"


class CodePoints:
    """Token ids are code points."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


def question(m: int, q: int, t: int) -> Question:
    sampling = SamplingSpec(TEMPERATURES[t], 1.0, 64, 0, ())
    request = GenerateGroup(f"{m}/{q}/{t}", np.zeros(1, np.int32), 1, sampling, VERSION, True)
    problem = Problem(f"q{q:03d}", f"Question {q}?", f"#### {gold(q)}", str(gold(q)))
    return Question(f"lab/model-{m}", "zero_shot", TEMPERATURES[t], problem, problem.question, request)


def result(m: int, q: int, t: int) -> GroupResult:
    ids = np.array([ord(c) for c in text(m, q, t)], dtype=np.int32)
    return GroupResult(f"{m}/{q}/{t}", (Completion(ids, np.full(len(ids), -0.5, np.float32), "stop", ()),))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("matrix")
    config = load_config(["command=eval", "preset=cpu_demo", f"artifacts={folder}"])
    run = run_folder.create(config.artifacts, "matrix")
    manifest.write_config(run, config.model_dump(mode="json"))
    questions = {cell: question(*cell) for cell in CELLS}
    file = PredictionFile(run.path / "predictions.jsonl", {q.key: 1 for q in questions.values()})
    for cell, asked in reversed(questions.items()):
        file.add(graded(asked, result(*cell), CodePoints(), Grader(config.prompt.answer_rules)))
    order = {asked.key: index for index, asked in enumerate(questions.values())}
    write_results(config, run, summarize_predictions(file.finish(order), None, config.seed), [], 1.0)
    report_of_run(run.path)
    return run


@pytest.fixture(scope="module")
def summary(evaluated: RunFolder) -> dict[str, Any]:
    return dict(json.loads(evaluated.summary_json.read_text()))


@pytest.fixture(scope="module")
def page(evaluated: RunFolder) -> str:
    """The report, with its cells as `<td>text</td>`."""
    text = (evaluated.path / "report.html").read_text().replace("\u00a0", " ").replace("<wbr>", "")
    return re.sub(r"<td [^>]*>", "<td>", text)


def test_the_rule_has_something_of_everything() -> None:
    counts = [sum(right(m, q, t) for q in ITEMS) for m in MODELS for t in range(5)]
    assert len(set(counts)) > 8
    assert any(written_otherwise(m, q, t) for m, q, t in CELLS)
    assert any(not right(m, q, t) and not written_otherwise(m, q, t) for m, q, t in CELLS)


def test_the_table(summary: dict[str, Any], page: str) -> None:
    expected = {
        (f"lab/model-{m}", TEMPERATURES[t]): (
            sum(right(m, q, t) for q in ITEMS) / 100,
            sum(right(m, q, t) or written_otherwise(m, q, t) for q in ITEMS) / 100,
        )
        for m in MODELS
        for t in range(5)
    }
    found = {
        (r["model"], r["temperature"]): (r["accuracy"], r["accuracy_punctuation_free"]) for r in summary["results"]
    }
    assert found == expected
    for r in summary["results"]:
        assert r["ci_low"] <= r["accuracy"] <= r["ci_high"]
        assert r["punctuation_free_ci_low"] <= r["accuracy_punctuation_free"] <= r["punctuation_free_ci_high"]
        assert r["logic_error_frac"] == pytest.approx(1 - r["accuracy"])
        assert r["pass_at"] == r["majority_at"] == {"1": r["accuracy"]}
        strict, lenient = expected[r["model"], r["temperature"]]
        cells = f"<td>{100 * strict:.1f} % [{100 * r['ci_low']:.1f}, {100 * r['ci_high']:.1f}]</td>"
        assert cells in page
        assert f"<td>{100 * lenient:.1f} % [" in page


def test_right_at_any_temperature(summary: dict[str, Any], page: str) -> None:
    union = {f"lab/model-{m}": sum(any(right(m, q, t) for t in range(5)) for q in ITEMS) / 100 for m in MODELS}
    assert {a["model"]: a["accuracy"] for a in summary["any_temperature"]} == union
    for a in summary["any_temperature"]:
        assert (a["temperatures"], a["items"], a["completions"]) == (list(TEMPERATURES), 100, 5)
        assert a["ci_low"] <= a["accuracy"] <= a["ci_high"]
        assert f"<td>{100 * a['accuracy']:.1f} % [{100 * a['ci_low']:.1f}, {100 * a['ci_high']:.1f}]</td>" in page


def votes(m: int, q: int) -> tuple[int, int]:
    """Votes for the right answer, and for the most common wrong one, by hand: other wrong numbers differ by t."""
    otherwise = sum(written_otherwise(m, q, t) for t in range(5))
    others = 5 - otherwise - (right_votes := sum(right(m, q, t) for t in range(5)))
    return right_votes, max(otherwise, min(others, 1))


def test_the_majority_and_punctuation_free_over_all_temperatures(summary: dict[str, Any], page: str) -> None:
    tied = 0
    for a in summary["any_temperature"]:
        m = int(a["model"][-1])
        won = sum(good > bad for good, bad in (votes(m, q) for q in ITEMS))
        ties = sum(good == bad for good, bad in (votes(m, q) for q in ITEMS))
        assert won <= round(100 * a["majority"]) <= won + ties
        assert a["majority_ci_low"] <= a["majority"] <= a["majority_ci_high"]
        lenient = sum(any(right(m, q, t) or written_otherwise(m, q, t) for t in range(5)) for q in ITEMS) / 100
        assert a["accuracy_punctuation_free"] == lenient
        assert f"<td>{100 * lenient:.1f} % [" in page
        assert f"<td>{100 * a['majority']:.1f} % [" in page
        tied += ties
    assert tied > 0


def test_eval_results_has_the_numbers_of_the_summary(evaluated: RunFolder, summary: dict[str, Any]) -> None:
    found = json.loads((evaluated.path / "eval_results.json").read_text())
    assert found["evaluation_set"]["item_ids"] == [f"q{q:03d}" for q in ITEMS]
    assert found["evaluation_set"]["examples"] == 100
    for one, r in zip(found["results"], summary["results"], strict=True):
        m, t = int(one["model"][-1]), TEMPERATURES.index(one["temperature"])
        assert one["correct"] == sum(right(m, q, t) for q in ITEMS)
        same = ("model", "prompting", "temperature", "samples", "accuracy", "ci_low", "ci_high")
        same += ("accuracy_punctuation_free", "pass_at", "majority_at")
        assert {key: one[key] for key in same} == {key: r[key] for key in same}
        assert one["examples"] == r["items"]
    for one, a in zip(found["over_temperatures"], summary["any_temperature"], strict=True):
        m = int(one["model"][-1])
        assert one["any_temperature"]["correct"] == sum(any(right(m, q, t) for t in range(5)) for q in ITEMS)
        assert one["any_temperature"] | {"correct": 0} == {
            "correct": 0,
            **{key: a[key] for key in ("accuracy", "ci_low", "ci_high")},
        }
        assert one["majority"]["accuracy"] == a["majority"]
        assert one["any_temperature_punctuation_free"]["accuracy"] == a["accuracy_punctuation_free"]


def test_the_grids(page: str) -> None:
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    solved = [[any(right(m, q, t) for t in range(5)) for q in ITEMS] for m in MODELS]
    for m in MODELS:
        (trace,) = figures[f"grid-{m}"]["data"]
        assert trace["z"] == [[float(solved[m][10 * row + column]) for column in range(10)] for row in range(10)]
        assert f"{sum(solved[m])} of 100 questions right" in page
    (trace,) = figures["grid-overlay"]["data"]
    counts = [sum(solved[m][q] for m in MODELS) for q in ITEMS]
    assert trace["z"] == [counts[10 * row : 10 * row + 10] for row in range(10)]
    assert trace["hovertext"][0][1] == f"q001: right by {counts[1]} of 6"
    ever, always = sum(count > 0 for count in counts), sum(count == 6 for count in counts)
    assert f"{ever} of 100 questions were solved by at least one of 6 models and ways of asking: {ever}.0 % [" in page
    assert f"{always} were solved by all, {100 - ever} by none" in page


def test_the_bars(page: str, summary: dict[str, Any]) -> None:
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    for t, trace in enumerate(figures["accuracies"]["data"]):
        assert trace["name"] == f"temperature {TEMPERATURES[t]:g}"
        assert trace["x"] == [sum(right(m, q, t) for q in ITEMS) / 100 for m in MODELS]
        results = [r for r in summary["results"] if r["temperature"] == TEMPERATURES[t]]
        assert trace["error_x"]["array"] == pytest.approx([r["ci_high"] - r["accuracy"] for r in results])
        assert trace["error_x"]["arrayminus"] == pytest.approx([r["accuracy"] - r["ci_low"] for r in results])
    ever, _, majority = figures["over-temperatures"]["data"]
    assert ever["x"] == [a["accuracy"] for a in summary["any_temperature"]]
    assert majority["x"] == [a["majority"] for a in summary["any_temperature"]]
    assert "pass-at-k" not in figures  # one sample


def test_the_heat_map(page: str) -> None:
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    (trace,) = figures["questions"]["data"]
    assert [label.replace("<br>", "") for label in trace["y"]] == [
        *(f"lab/model-{m},zero_shot" for m in MODELS),
        "<b>all overlaid</b>",
    ]
    assert sorted(trace["x"]) == [f"q{q:03d}" for q in ITEMS]
    for column, name in enumerate(trace["x"]):
        q = int(name[1:])
        for m in MODELS:
            assert trace["z"][m][column] == sum(right(m, q, t) for t in range(5)) / 5
        overlaid = Fraction(sum(right(m, q, t) for m in MODELS for t in range(5)), 30)
        assert trace["z"][6][column] == pytest.approx(float(overlaid), abs=1e-15)
    assert trace["z"][6] == sorted(trace["z"][6], reverse=True)
    never = sum(not any(right(m, q, t) for m in MODELS for t in range(5)) for q in ITEMS)
    always = sum(all(right(m, q, t) for m in MODELS for t in range(5)) for q in ITEMS)
    said = f"of 100 questions, {always} were answered right by all, {never} by none, {100 - always - never} by some"
    assert said in page
