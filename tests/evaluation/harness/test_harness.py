"""Real tasks on the embedded model: our engines, our server and Hugging Face's own forward pass agree."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from grpo_gsm8k.models import EMBEDDED_TINY
from tests.conftest import Cli

pytestmark = pytest.mark.slow
NAMES = ("sums_choice", "sums_worked", "sums_generate", "sums_text")


def arguments(tasks: Path, *more: str) -> list[str]:
    suites = ",".join(str(tasks / f"{name}.yaml") for name in NAMES)
    return ["command=eval", "preset=cpu_demo", f"eval.eval_suites=[{suites}]", "eval.lm_eval_shots=null", *more]


def scores(folder: Path) -> dict[tuple[str, str], tuple[float, float | None]]:
    summary = json.loads((folder / "summary.json").read_text())
    return {(s["model"], s["task"]): (s["value"], s["stderr"]) for s in summary["lm_eval"]["scores"]}


@pytest.fixture(scope="module")
def reference(tasks: Path) -> dict[str, Any]:
    """Return the results of `lm_eval --model hf`, run in a child process."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--include_path", str(tasks)]
    command += ["--model_args", f"pretrained={EMBEDDED_TINY},dtype=float32,max_length=160", "--tasks", ",".join(NAMES)]
    command += ["--seed", "0", "--output_path", str(tasks / "hf")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (found,) = (tasks / "hf").rglob("results_*.json")
    return dict(json.loads(found.read_text())["results"])


@pytest.mark.parametrize("backend", ["engine", "server"])
def test_numbers_equal_those_of_hugging_face(backend: str, reference: dict[str, Any], tasks: Path, cli: Cli) -> None:
    done = cli.run(*arguments(tasks, f"eval.lm_eval_backend={backend}"))
    assert done.returncode == 0, done.stderr
    found = scores(cli.runs()[-1])
    model = "embedded:tiny"
    assert found[model, "sums_choice"][0] == reference["sums_choice"]["acc,none"]
    assert found[model, "sums_choice"][1] == pytest.approx(reference["sums_choice"]["acc_stderr,none"])
    assert found[model, "sums_worked"][0] == reference["sums_worked"]["acc,none"] > 0.9
    assert found[model, "sums_generate"][0] == reference["sums_generate"]["exact_match,marked"] > 0
    assert found[model, "sums_text"][0] == pytest.approx(reference["sums_text"]["word_perplexity,none"], rel=1e-4)


def test_before_and_after_with_the_exit_code(tasks: Path, random_model: Path, cli: Cli) -> None:
    more = ("eval.baseline=embedded:tiny", f"eval.model_path={random_model}")
    done = cli.run(*arguments(tasks, *more, "eval.limit=20"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sums_worked +acc .* REGRESSION ", done.stdout, re.MULTILINE), done.stdout
    (run,) = cli.runs()
    summary = json.loads((run / "summary.json").read_text())
    assert [c["task"] for c in summary["lm_eval"]["changes"]] == list(NAMES)
    assert all(
        c["baseline"] == "embedded:tiny" and c["model"] == str(random_model) for c in summary["lm_eval"]["changes"]
    )
    assert summary["regressions"]
    assert "lm-eval before and after" in (run / "report.md").read_text()
    done = cli.run(*arguments(tasks, *more, "eval.limit=20", f"eval.resume_from={run}", "eval.fail_on_regression=true"))
    assert done.returncode == 3, done.stderr
    assert "lm-eval: sums" not in done.stdout  # nothing was run again


def test_killed_between_two_tasks_it_goes_on_with_the_next(tasks: Path, cli: Cli) -> None:
    process = cli.start(*arguments(tasks, "eval.lm_eval_backend=server"))
    while not (finished := list(cli.artifacts.glob("runs/*/lm_eval/*sums_choice.json"))):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    (run,) = cli.runs()
    servers = psutil.Process(process.pid).children(recursive=True)
    assert any("api_server" in " ".join(server.cmdline()) for server in servers)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert not alive, "the server outlived the evaluation"
    assert not (run / "summary.json").exists()
    stamp = finished[0].stat().st_mtime_ns
    done = cli.run(*arguments(tasks, "eval.resume_from=latest"))  # on our engines now: the numbers are the same
    assert done.returncode == 0, done.stderr
    assert finished[0].stat().st_mtime_ns == stamp
    assert {task for _, task in scores(run)} == set(NAMES)


def test_a_prompt_that_is_cut_is_told_of(tasks: Path, cli: Cli) -> None:
    more = ("eval.lm_eval_shots=8", "eval.limit=4", "actor.max_model_len=100")
    done = cli.run("command=eval", "preset=cpu_demo", f"eval.eval_suites={tasks}/sums_choice.yaml", *more)
    assert done.returncode == 0, done.stderr
    assert "lm-eval: 16 of 16 prompts were truncated on the left: raise actor.max_model_len" in done.stderr


def test_an_unknown_task_costs_no_engine_start(cli: Cli) -> None:
    done = cli.run("command=eval", "preset=cpu_demo", "eval.eval_suites=[gsm8k,surely_not]")
    assert done.returncode == 2
    assert "unknown surely_not; give gsm8k" in done.stderr.strip().splitlines()[-1]
    assert not cli.runs()
