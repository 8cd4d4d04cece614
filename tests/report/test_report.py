"""Reports of synthetic runs: contents, inert model texts, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.report import collect, figures, items, panels, run_lookup, settings, tables, words
from grpo_gsm8k.report.render import breakable, cell, render_html, render_markdown, strict, unbroken
from grpo_gsm8k.report.write_report import build, output_folder, report_of_run
from grpo_gsm8k.tracking.metrics import METRICS
from tests.report import runs as made


class Page(HTMLParser):
    """Collects script elements, and attributes that could load or run anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.risky: list[str] = []
        self.plots: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given)
        if given.get("class") == "plot":
            self.plots.append(given)
        for name, value in attrs:
            if name.startswith("on") or (name in {"src", "href"} and not str(value).startswith(("#", "data:,", "./"))):
                self.risky.append(f"{tag} {name}={value}")


def three(tmp_path: Path, updates: int = 6) -> list[Path]:
    runs = tmp_path / "runs"
    lora = {
        "learner": {"device": "cuda:1", "lr": 1e-5, "lora": {"enabled": True, "rank": 8}},
        "actor": {"device": "cuda:0"},
    }
    return [
        made.training(runs, "base", updates),
        made.training(runs, "better", updates, right=19, **lora),
        made.training(runs, "same", updates, right=11, command="sft"),
    ]


def report(folders: list[Path]) -> Any:
    return build(collect.collect(folders, None), 2.0, "Title")


def test_a_comparison_says_higher_or_noise_and_what_it_cost(tmp_path: Path) -> None:
    found = report(three(tmp_path))
    rows = [dict(zip(found.methods.columns, row, strict=True)) for row in found.methods.rows]
    versus = [row["Difference to base"] for row in rows]
    assert versus[0] == "baseline"
    assert versus[1].startswith("higher: +45.0 points [")
    assert "p = 0.004, corrected 0.008; paired on 20 items" in versus[1]
    assert versus[2].startswith("noise: +5.0 points [")
    assert [row["Cost"] for row in rows] == ["CPU", "$4.00", "CPU"]  # two GPUs for an hour at 2 dollars
    assert rows[0]["Method"] == "grpo clip / group mean std"
    assert rows[1]["Method"].endswith("LoRA of rank 8")
    assert rows[2]["Method"] == "supervised fine-tuning"
    assert rows[0]["Accuracy at start"] == "25.0 % [15.0, 35.0]"
    assert rows[0]["Tokens"] == "6000"
    assert ("learner.lr", "1e-06", "1e-05", "1e-06") in found.settings.rows
    assert [(c.title, len(c.items)) for c in found.changes[:1]] == [("base, update 6 → better, update 6", 9)]


def test_the_page_is_whole_and_model_text_is_inert(tmp_path: Path) -> None:
    folders = [*three(tmp_path), made.evaluation(tmp_path / "runs", samples=2)]
    found = report(folders)
    page = Page(text := render_html(found))
    assert len(page.scripts) == 5
    assert not page.risky
    assert [script for script in page.scripts if script] == [
        {"type": "application/json", "id": name} for name in ("figures", "details")
    ]
    assert "<script>document.title" not in text
    assert "&lt;script&gt;document.title" in text
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert len(text.encode()) < 2.5e6
    drawn = {plot["id"] for plot in page.plots}
    assert drawn == {figure.id for figure in found.figures}
    assert all(plot["role"] == "img" and len(plot["aria-label"] or "") > 40 for plot in page.plots)
    data = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert data.keys() == drawn


def test_figures_are_valid_for_plotly(tmp_path: Path) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for figure in report([*three(tmp_path), made.evaluation(tmp_path / "runs")]).figures:
        graph_objects.Figure(strict({"data": figure.data, "layout": figure.layout}))


def test_an_evaluation_alone(tmp_path: Path) -> None:
    found = report([made.evaluation(tmp_path / "runs", samples=2)])
    text = render_markdown(found)
    assert "1\\_a/step\\_9, zero\\_shot: 80.0 % at 0; 80.0 % at 1" in text
    assert "of 20 questions, 4 were answered right by all, 4 by none, 12 by some" in text
    assert "hellaswag | acc | big | 0.3 ± 0.02 | 0.1 | 0.2 ± 0.03 | better |" in text
    assert "1 unreadable line of predictions.jsonl skipped" in text
    assert "first sample" in found.changes[0].words


def test_an_interrupted_run_is_reported_as_far_as_it_went(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "cut")
    (folder / "summary.json").unlink()
    (folder / "validation" / "step_6.parquet").write_bytes(b"half")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/')
    page = report_of_run(folder)
    text = page.with_suffix(".md").read_text()
    assert page == folder / "report.html"
    assert "not finished, 6 updates" in text
    assert "1 unreadable line of metrics.jsonl skipped" in text
    assert "answers of version 6 are unreadable" in text
    assert "1 min 30 s" in text  # from the events


def test_an_empty_run_still_makes_a_page(tmp_path: Path) -> None:
    (folder := tmp_path / "20260101-000000_empty").mkdir()
    (folder / "config.yaml").write_text("command: sft\n")
    assert report_of_run(folder).stat().st_size > 1e6


def test_runs_are_found_by_folder_name_and_latest(tmp_path: Path) -> None:
    first, second = (made.training(tmp_path / "runs", name).resolve() for name in ("a", "b"))
    assert run_lookup.find_runs(tmp_path, ["a", str(first), first.name]) == [first]
    assert collect.find_run(tmp_path, "latest") == second
    with pytest.raises(UserError, match=r"report\.runs: nothing is not a run"):
        collect.find_run(tmp_path, "nothing")
    with pytest.raises(UserError, match="has no run of"):
        collect.find_run(tmp_path / "elsewhere", "latest")
    assert output_folder(tmp_path, [first]) == first
    assert output_folder(tmp_path, [first, second]).parent == tmp_path / "reports"


def test_other_questions_under_the_same_ids_are_not_compared(tmp_path: Path) -> None:
    one, other = (made.training(tmp_path / "runs", name) for name in ("a", "b"))
    for path in (other / "validation").iterdir():
        rows = [row | {"question": "another"} for row in made.pq.read_table(path).to_pylist()]
        made.pq.write_table(made.pa.Table.from_pylist(rows), path)
    assert report([one, other]).methods.rows[1][7] == "not compared: no items in common"


def test_texts_have_a_budget(tmp_path: Path) -> None:
    pairs = collect.collect(three(tmp_path), None).pairs
    found = items.changed_items(pairs, most=12_000)
    assert all(sum(item.page_bytes for item in change.items) <= 4_000 for change in found)
    assert any(change.left_out for change in found)


def test_words() -> None:
    assert words.points(-0.0001) == "0.0"
    assert words.points(-0.031) == "−3.1"
    assert words.count(1_234_567) == "1.23 million"
    assert words.duration(7512) == "2 h 05 min"
    assert words.number(2841.2) == "2841"
    assert words.number(4.2e-6) == "4.2e−06"
    assert cell("a|b\n<b>") == "a\\|b &lt;b&gt;"
    assert figures.wrap_label("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"
    assert collect.spread(range(100), 3) == [0, 50, 99]
    assert dict(settings.flatten({"a": {"b": None}, "c": {}})) == {"a.b": "null", "c": "{}"}
    assert strict({"a": (float("nan"), 1.0)}) == {"a": [None, 1.0]}


def test_panels_show_what_changes_and_name_what_does_not(tmp_path: Path) -> None:
    groups = panels.panels(collect.collect(three(tmp_path), None).runs)
    shown = {group.title: [figure.title for figure in group.figures] for group in groups}
    assert shown == {"Reward": ["Reward", "Reward part: format"], "Policy update": ["Entropy"], "Speed": []}
    constant = {group.title: group.constant for group in groups}
    assert constant["Policy update"] == ("clip fraction (all): 0",)
    assert constant["Speed"] == ("seconds per update: 30", "sampled tokens: 1000", "response tokens: 1000")


def test_a_page_of_six_long_runs_is_small(tmp_path: Path) -> None:
    """With every metric of the registry, long texts, and 1000 updates of each of six runs."""
    runs = tmp_path / "runs"
    folders = [made.training(runs, f"run_{i}", right=20 - i) for i in range(6)]
    rng = np.random.default_rng(0)
    names = [name for name in METRICS if not name.startswith("val/")]
    for folder in folders:
        values = rng.normal(size=(1000, len(names)))
        lines = [{"step": s + 1, **dict(zip(names, row, strict=True))} for s, row in enumerate(values.tolist())]
        kept = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "val/version" in line]
        (folder / "metrics.jsonl").write_text("\n".join([*kept, *map(json.dumps, lines)]) + "\n")
        for path in (folder / "validation").iterdir():
            rows = [row | {"text": row["text"] + "x" * 20_000} for row in made.pq.read_table(path).to_pylist()]
            made.pq.write_table(made.pa.Table.from_pylist(rows), path)
    page = render_html(report(folders)).encode()
    assert len(page) < 2.5e6
    assert b"panel-mem-learner-gpu-held" in page


def test_numbers_stay_with_their_units() -> None:
    shown = unbroken("46.3 % to 86.7 %, 2 h 05 min, 3 min 13 s, 190 thousand of 30 seconds")
    assert shown.replace("\u00a0", "~") == "46.3~% to 86.7~%, 2~h~05~min, 3~min~13~s, 190~thousand of 30 seconds"
    assert breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"


def test_gpus_are_counted_once() -> None:
    def hours(**more: Any) -> float | None:
        run = collect.Run(
            "r", Path(), "policy_gradient", made.config("policy_gradient", "r", **more), {}, {}, (), (), 3600.0
        )
        return tables.gpu_hours(run)

    assert hours() == 0
    assert hours(actor={"device": "cuda:0", "replicas": 1}, learner={"device": "cuda:0"}) == 1
    assert hours(actor={"device": "cuda:0", "replicas": 3}, learner={"device": "cuda:3"}) == 4
    assert hours(actor={}) is None


def test_three_long_runs_take_seconds(tmp_path: Path) -> None:
    folders = three(tmp_path, updates=300)
    started = time.perf_counter()
    render_html(report(folders))
    assert time.perf_counter() - started < 10


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    page = tmp_path / "report.html"
    page.write_text(render_html(report(three(tmp_path))))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    flags += ["--virtual-time-budget=8000", f"--user-data-dir={tmp_path / 'profile'}"]
    address = f"{page.as_uri()}#items?text=What+is+12&change=fixed&pair=0"
    done = subprocess.run([browser, *flags, address], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert "<title>Title</title>" in done.stdout  # the scripts in completions did not run
    assert done.stdout.count('class="main-svg"') >= 6
    assert re.search(r'id="filter-count"[^>]*>1 of \d+ shown<', done.stdout)
