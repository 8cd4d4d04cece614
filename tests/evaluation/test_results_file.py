"""`eval_results.json` has the numbers of the summary."""

from __future__ import annotations

import json

from grpo_gsm8k.evaluation.accuracy import summarize_predictions
from grpo_gsm8k.evaluation.predictions import Prediction
from grpo_gsm8k.evaluation.results_file import EVAL_RESULTS, eval_results, write_eval_results
from tests.learner.conftest import small_config


def predictions() -> list[Prediction]:
    """Four problems at two temperatures: right at 0 are 1 of 4, right at 1 are 2 of 4, at any temperature 3 of 4."""
    right = {0.0: {"q0"}, 1.0: {"q1", "q2"}}
    return [
        Prediction(
            model="m",
            prompting="zero_shot",
            temperature=t,
            item_id=item,
            sample=0,
            question=item,
            gold="1",
            text="",
            extracted="1",
            number="1" if item in right[t] else "2",
            kind="correct" if item in right[t] else "logic",
            right_unpunctuated=item in right[t],
            tokens=3,
            mean_logprob=-0.1,
            failed=False,
        )
        for t in right
        for item in ("q0", "q1", "q2", "q3")
    ]


def test_the_file_has_the_numbers_of_the_summary(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = small_config("command=eval", "eval.temperatures=[0,1]", "eval.split=test")
    measured = summarize_predictions(predictions(), None, config.seed)
    write_eval_results(tmp_path, config, measured)
    found = json.loads((tmp_path / EVAL_RESULTS).read_text())
    assert found == json.loads(json.dumps(eval_results(config, measured)))
    assert (found["evaluation_set"], found["examples"]) == (f"{config.data.folder}/test", 4)
    assert [(r["temperature"], r["accuracy"], r["correct"], r["completions"]) for r in found["results"]] == [
        (0.0, 0.25, 1, 4),
        (1.0, 0.5, 2, 4),
    ]
    assert [r["interval"] for r in found["results"]] == [[r.ci_low, r.ci_high] for r in measured.results]
    (over,) = found["over_temperatures"]
    assert (over["right_at_any_temperature"], over["completions_per_example"]) == (0.75, 2)
