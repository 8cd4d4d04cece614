"""`train` and `evaluate`: a configuration in, a run folder out, exceptions for failures; as a notebook calls them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import grpo_gsm8k
from grpo_gsm8k import evaluate, train
from grpo_gsm8k.command_line import python_interface
from grpo_gsm8k.command_line.python_interface import override_words
from grpo_gsm8k.commands.child_command import CommandResult
from grpo_gsm8k.errors import LabError, UserError
from tests.conftest import REPO
from tests.docs.pages import blocks

TEXTS = [
    "a b",
    "it's",
    '"quoted"',
    "back\\slash",
    "end\\",
    "\\'",
    "1e3",
    "true",
    "null",
    "",
    " x ",
    "a,b",
    "{x}",
    "ş→",
    "#",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_texts(text: str) -> None:
    (word,) = override_words({"prompt.text": text}, {})
    assert OverridesParser.create().parse_override(word).value() == text


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "k=null"),
        (True, "k=true"),
        (3, "k=3"),
        (np.int64(3), "k=3"),
        (1e-5, "k=1e-05"),
        (np.float64(0.5), "k=0.5"),
        (np.float32(0.5), "k=0.5"),
        (Path("a/b"), "k='a/b'"),
        ([1, "x", [2.0]], "k=[1,'x',[2.0]]"),
        ((), "k=[]"),
    ],
)
def test_values(value: object, word: str) -> None:
    assert override_words({"k": value}, {}) == [word]


def test_overrides_mappings_and_keywords() -> None:
    assert override_words("seed=1", {"preset": "cpu_demo"}) == ["seed=1", "preset='cpu_demo'"]
    assert override_words(["seed=1", "~x"][:1], {}) == ["seed=1"]
    nested: Mapping[str, object] = {
        "learner": {"lr": 1e-5, "lora": {"rank": 4}},
        "policy_gradient.rewards": {"correct": 1},
    }
    assert override_words(nested, {}) == [
        "learner.lr=1e-05",
        "learner.lora.rank=4",
        "policy_gradient.rewards={correct:1}",
    ]


@pytest.mark.parametrize(
    "config", [["-m"], ["seed"], [1], {"seed": {1}}, {"seed": object()}, {"name": b"x"}, ["--cfg=job"]]
)
def test_what_is_not_a_configuration(config: object) -> None:
    with pytest.raises(UserError):
        train(config)  # type: ignore[arg-type]


def test_other_commands_are_refused() -> None:
    with pytest.raises(UserError, match="command=eval does not train"):
        train(command="eval")
    with pytest.raises(UserError, match="command=sft does not evaluate"):
        evaluate(["command=sft"])


def test_the_package_offers_both_and_nothing_else() -> None:
    assert grpo_gsm8k.__all__ == ["evaluate", "train"]
    assert {"evaluate", "train"} <= set(dir(grpo_gsm8k))
    with pytest.raises(AttributeError, match="has no attribute 'tran'"):
        grpo_gsm8k.tran  # noqa: B018
    code = "import sys, grpo_gsm8k; print({'hydra', 'torch', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("code", "error", "kind", "needle"),
    [
        (2, "seed: no", UserError, "seed: no"),
        (1, "the engine died", LabError, "the engine died"),
        (3, None, LabError, "a benchmark regressed"),
        (4, None, LabError, "the budget is used up"),
        (130, None, LabError, "stopped by SIGINT"),
        (137, None, LabError, "stopped by SIGKILL"),
        (0, None, LabError, "no run folder"),
    ],
)
def test_failures_are_exceptions(
    code: int, error: str | None, kind: type[Exception], needle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = () if code == 0 else (Path("/runs/x"),)
    result = CommandResult(code=code, runs=runs, error=error, interrupted=None)
    monkeypatch.setattr(python_interface, "run_command", lambda words: result)
    with pytest.raises(kind, match=needle) as raised:
        train(preset="cpu_demo")
    assert type(raised.value) is kind
    assert code == 0 or "run folder /runs/x" in str(raised.value)


def test_an_interrupted_call_that_ends_well_raises_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a loop of calls would go on with the next one."""
    result = CommandResult(code=0, runs=(Path("/runs/x"),), error=None, interrupted=signal.SIGINT)
    monkeypatch.setattr(python_interface, "run_command", lambda words: result)
    with pytest.raises(LabError, match="interrupted"):
        train(preset="cpu_demo")


def test_a_bad_configuration_is_a_user_error_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child process, in which `SystemExit` would be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"learner\.lrr: unknown key; did you mean learner\.lr\?"):
        train({"learner.lrr": 1}, preset="cpu_demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_notebook_of_the_docs(tmp_path: Path) -> None:
    """The cells of the page, from stdin: without a `__main__` file, as in a notebook, and in another folder."""
    cells = [block.text for block in blocks(REPO / "docs" / "command_line.md") if block.language == "python"]
    code = "\n".join(cells)
    assert len(re.findall(r"\btrain\(", code)) == 1
    assert "evaluate(" in code
    (tmp_path / "grpo_gsm8k").mkdir()  # the working directory does not replace the package
    (tmp_path / "grpo_gsm8k" / "__init__.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        input=code,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "artifacts" / "runs").iterdir())) == 2
