"""The section "What to look at" of a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.render import Report, render_html, render_markdown
from grpo_gsm8k.report.what_to_look_at import verdicts
from grpo_gsm8k.report.write_report import build
from tests.conftest import REPO
from tests.diagnoses.recorded_runs import recorded
from tests.report import runs as made


def folder_of(runs: Path, name: str, **events: str) -> Path:
    """Write a run folder with the records of a recorded run."""
    folder, record = runs / f"20260101-000000_{name}", recorded(name)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record.config))
    validations = [{f"val/{key}": value for key, value in v.items()} for v in record.validations]
    lines = [json.dumps(line) + "\n" for line in (*record.updates, *validations)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "events.jsonl").write_text(
        "".join(json.dumps({"time": 0, "kind": k, "reason": r}) for k, r in events.items())
    )
    return folder


def report(*folders: Path) -> Report:
    return build(collect.collect(folders, None), 2.0, "Title")


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_section_names_evidence_and_key_near_the_top(tmp_path: Path, render: object) -> None:
    page = render(report(folder_of(tmp_path, "short_limit"), folder_of(tmp_path, "good")))  # type: ignore[operator]
    page = page.replace("\\", "")
    at = page.index("What to look at</h2>") if "<html" in page else page.index("## What to look at")
    rest = page[at : at + 900]
    assert "short_limit" in rest
    assert "1 warning" in rest
    assert "100 % of groups tied, 0 % of completions right, 100 % truncated" in rest
    assert "raise policy_gradient.max_new_tokens (now 4)" in rest
    assert "checks on 30 updates give no warning" in rest
    assert at < page.index("Accuracy by updates")


def test_the_reason_of_a_restart_is_escaped(tmp_path: Path) -> None:
    page = render_html(report(folder_of(tmp_path, "good", actor_restarted="<script>alert(1)</script>")))
    assert "workers restarted" in page
    assert "<script>alert" not in page


def test_a_short_run_is_called_short() -> None:
    record = recorded("good")
    run = collect.Run("a", Path(), "policy_gradient", record.config, {}, {}, tuple(record.updates[:4]), (), None)
    (verdict,) = verdicts([run])
    assert verdict.diagnoses == ()
    assert verdict.text.endswith(
        "checks on 4 updates give no warning; too short for those of trends, which need 10 updates"
    )


def test_a_run_of_an_older_version() -> None:
    """Its summary has no diagnoses; the report computes them from its records."""
    run = collect.read_run(REPO / "tests" / "fixtures" / "run_of_2026_11_21" / "run", "older")
    assert "diagnoses" not in run.summary
    (verdict,) = verdicts([run])
    assert verdict.diagnoses == ()
    assert "checks on 2 updates" in verdict.text


def test_evaluations_and_bare_runs(tmp_path: Path) -> None:
    """An evaluation has no section; a run of which only config.yaml is left has no diagnosis."""
    assert verdicts(collect.collect([made.evaluation(tmp_path)], None).runs) == ()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text("command: policy_gradient\n")
    run = collect.read_run(tmp_path / "bare", "bare")
    (verdict,) = verdicts([run])
    assert "0 updates" in verdict.text
    broken = replace(run, manifest={"machine": None, "resumes": None}, config={"actor": []})
    assert verdicts([broken])[0].diagnoses == ()
