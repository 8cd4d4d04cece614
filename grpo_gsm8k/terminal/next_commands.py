"""Commands that a user can type after a run, correct for the shell and for Hydra's grammar."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Arguments of a run that its evaluation needs, too: groups and sections that `command=eval` reads.
OF_EVALUATION = ("recipe", "scale", "preset", "data", "model", "prompt", "actor", "seed")
HIDDEN = "*"  # a redacted value in recorded arguments


@dataclass(frozen=True, slots=True)
class FinishedTraining:
    """What the next commands depend on. `folder` is absolute; `checkpoint` is the best one, None without any.

    `arguments` started the run; `artifacts` is None if it is the default; `complete`: all updates are done.
    """

    command: str
    folder: Path
    checkpoint: Path | None
    newest: Path | None
    complete: bool
    failed: bool
    adapter: bool
    arguments: tuple[str, ...] = ()
    artifacts: Path | None = None


def next_commands(run: FinishedTraining, program: str) -> list[tuple[str, str]]:
    """Return what to do next and the command for it, in the order in which it is usually done."""
    place = [] if run.artifacts is None else [override("artifacts", str(run.artifacts.absolute()))]

    def line(command: str, *words: str) -> str:
        return " ".join([program, f"command={command}", *words, *place])

    found = []
    if not run.complete and (run.checkpoint is not None or not run.failed):
        found.append(("resume", line(run.command, override(f"{run.command}.resume_from", str(run.folder)))))
    if run.checkpoint is not None:
        kept = [shlex.quote(word) for word in evaluation_arguments(run.arguments)]
        found.append(("eval", line("eval", *kept, override("eval.model_path", str(run.checkpoint)))))
        found.append(("report", line("report", override_list("report.runs", [str(run.folder)]))))
        at = run.folder if run.checkpoint == run.newest else run.checkpoint
        if run.adapter:
            found.append(("merge", line("merge", override("run", str(at)))))
        found.append(("push", line("push", override("run", str(at)), "push.repo_id=OWNER/NAME")))
    return found


def evaluation_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a training run that its evaluation must repeat; the last of several for a key."""
    chosen: dict[str, str] = {}
    for word in arguments:
        key = word.partition("=")[0].lstrip("+~")
        if key.partition(".")[0].partition("/")[0] in OF_EVALUATION and HIDDEN * 3 not in word:
            chosen.pop(key, None)
            chosen[key] = word
    return list(chosen.values())


def resumed_evaluation(arguments: Sequence[str], folder: Path, program: str) -> str:
    """Return the command that continues an evaluation: its own arguments, and the run folder."""
    kept = [shlex.quote(word) for word in arguments if not word.startswith("eval.resume_from=")]
    return " ".join([program, *kept, override("eval.resume_from", str(folder.absolute()))])


def override(key: str, text: str) -> str:
    """Return `key=text` as one word for a shell, quoted for Hydra if its grammar needs that."""
    return shlex.quote(f"{key}={_value(text)}")


def override_list(key: str, texts: Sequence[str]) -> str:
    """Return `key=[text,...]` as one word for a shell."""
    return shlex.quote(f"{key}=[{','.join(_value(text) for text in texts)}]")


def fold(command: str, width: int, indent: str) -> list[str]:
    """Return a command in lines of at most `width` columns where words allow it, continued by backslashes."""
    words = _shell_words(command)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > width and lines[-1].strip():
            lines[-1] += " \\"
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}"
    return lines


def _shell_words(command: str) -> list[str]:
    return [shlex.quote(word) for word in shlex.split(command)]


def _value(text: str) -> str:
    """Return a text in Hydra's grammar: as it is if it is read as the same text, else in quotes."""
    try:
        for argument in (f"key={text}", f"key=[{text},1]"):
            found = OverridesParser.create().parse_override(argument).value()
            if found != (text if argument.endswith(text) else [text, 1]):
                return _quoted(text)
    except HydraException:
        return _quoted(text)
    return text


def _quoted(text: str) -> str:
    return str(QuotedString(text, Quote.single).with_quotes())
