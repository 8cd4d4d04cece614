"""Training and evaluation for notebooks and scripts: `from grpo_gsm8k import train, evaluate`."""

from __future__ import annotations

import numbers
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString

from grpo_gsm8k.commands.child_command import run_command
from grpo_gsm8k.config import Config
from grpo_gsm8k.config_keys import dotted_keys
from grpo_gsm8k.errors import LabError, UserError

if TYPE_CHECKING:
    from grpo_gsm8k.commands.child_command import CommandResult

Overrides = str | Sequence[str] | Mapping[str, Any]


def train(config: Overrides = (), /, **values: Any) -> Path:
    """Train, and return the run folder; `command="sft"` fine-tunes, else it is `command=policy_gradient`.

    `config` is what the command line takes, or the same as a mapping; keywords are keys without a dot, and groups:

        train(["policy_gradient=rloo", "learner.lr=1e-5"], preset="cpu_demo", seed=1)
        train({"learner.lr": 1e-5, "policy_gradient.updates": 10}, preset="cpu_demo")

    The run is a process of its own that ends with this one; interrupting this one stops the run after a checkpoint.
    Relative folders, `artifacts` included, are below the working directory.

    Raises UserError for a bad configuration or input, before anything starts, and LabError if the run fails or stops
    early: interrupted, over its budget, or with a regression. The message then names the run folder.
    """
    words = override_words(config, values)
    command = _command_of(words) or "policy_gradient"
    if command not in ("policy_gradient", "sft"):
        raise UserError(f"command={command} does not train: use policy_gradient or sft")
    return _run_folder([*words, f"command={command}"])


def evaluate(config: Overrides = (), /, **values: Any) -> Path:
    """Evaluate models as `command=eval` does, and return the run folder; its `summary.json` has the results.

    Arguments, relative folders and errors are as for `train`:

        evaluate({"eval.model_path": "run:latest:policy_gradient", "eval.limit": 100}, preset="cpu_demo")
    """
    words = override_words(config, values)
    command = _command_of(words) or "eval"
    if command != "eval":
        raise UserError(f"command={command} does not evaluate: leave command out")
    return _run_folder([*words, f"command={command}"])


def override_words(config: Overrides, values: Mapping[str, Any]) -> list[str]:
    """Return overrides for the command line. Raises UserError for a value that it cannot express."""
    given = [config] if isinstance(config, str) else config
    words = _words(given) if isinstance(given, Mapping) else list(given)
    if wrong := [word for word in words if not isinstance(word, str) or "=" not in word or word.startswith("-")]:
        raise UserError(f"{wrong[0]!r} is not an override: give texts such as 'learner.lr=1e-5', or a mapping")
    return [*words, *_words(values)]


def _words(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key=value` for each value; a mapping that is not the value of a key holds keys of its section."""
    words: list[str] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        nested = isinstance(value, Mapping) and key not in dotted_keys(Config)
        words += _words(value, f"{key}.") if nested else [f"{key}={_text(key, value)}"]
    return words


def _text(key: str, value: Any) -> str:
    """Return a value in Hydra's grammar; texts are quoted, so that they stay texts."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case numbers.Integral():  # of NumPy, too
            return repr(int(value))
        case numbers.Real():
            return repr(float(value))
        case str() | Path():
            return str(QuotedString(str(value), Quote.single).with_quotes())
        case Mapping():
            return "{" + ",".join(f"{name}:{_text(f'{key}.{name}', inner)}" for name, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(_text(key, inner) for inner in value) + "]"
    raise UserError(f"{key}={value!r}: a {type(value).__name__} is not a value: give a text, number, list or mapping")


def _command_of(words: Sequence[str]) -> str | None:
    given = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("command=")]
    return given[-1] if given else None


def _run_folder(words: Sequence[str]) -> Path:
    """Run the command, and return its run folder. Raises UserError or LabError if it did not end well."""
    result = run_command(words)
    if result.code == 0 and result.runs and result.interrupted is None:
        return result.runs[-1]
    raise (UserError if result.code == 2 else LabError)(_reason(result))


def _reason(result: CommandResult) -> str:
    reasons = {0: "no run folder was written", 3: "a benchmark regressed"}
    reasons[4] = "the budget is used up; a checkpoint is saved"
    if result.code > 128:
        reasons[result.code] = f"stopped by {signal.Signals(result.code - 128).name}"
    if result.code == 0 and result.interrupted is not None:
        reasons[0] = f"interrupted by {result.interrupted.name} at its end; it is complete"
    reason = result.error or reasons.get(result.code, f"exit code {result.code}")
    return f"{reason} (run folder {result.runs[-1]})" if result.runs else reason
