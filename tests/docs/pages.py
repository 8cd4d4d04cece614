"""Code blocks of README.md and docs/*.md, and how the tests run them on a CPU.

An HTML comment above a block can be `not run: REASON` or `run with: WORDS`. In WORDS, `NAME=value` sets an environment
variable, and `key=value` is an override appended to `python cli.py command=...`. A block without a comment runs
unchanged. One shell runs all blocks of a page in order.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
PAGES = (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))
SHELL = ("bash", "sh", "shell", "console")
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL
)
_NOTE = re.compile(r"<!-- (not run|run with): (\S.*?) -->\s*\Z")
_FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml))\n")
_CLI = re.compile(r"^python cli\.py command=\w+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line`: of its fence; `not_run`: the reason, if any; `words`: the words of `run with`."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    words: tuple[str, ...]

    @property
    def script(self) -> str | None:
        """Shell script for the block: its commands, a patch to apply, or a file to write; None if it is not run."""
        if self.not_run is not None:
            return None
        if self.language in SHELL:
            return self._shell()
        if self.language == "diff":
            return f"git apply -C1 <<'END_OF_PATCH'\n{self.text}END_OF_PATCH\n"
        if self.language in ("python", "yaml") and (named := _FILE.match(self.text)):
            path = shlex.quote(named[1])
            return f"mkdir -p $(dirname {path})\ncat > {path} <<'END_OF_FILE'\n{self.text}END_OF_FILE\n"
        return None

    def _shell(self) -> str:
        variables = [word for word in self.words if word.partition("=")[0].isupper()]
        overrides = " ".join(shlex.quote(word) for word in self.words if word not in variables)
        lines = [f'export {name}="{value}"' for name, _, value in (word.partition("=") for word in variables)]
        text = _CLI.sub(lambda found: f"{found[0]} {overrides}".rstrip(), self.text)
        return "\n".join([*lines, text])


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        note = _NOTE.search(text[: match.start()])
        kind, words = note.groups() if note else ("", "")
        found.append(
            Block(
                page=page.name,
                line=text[: match.start()].count("\n") + 1,
                language=match["language"],
                text=textwrap.dedent(match["text"]),
                not_run=words if kind == "not run" else None,
                words=tuple(shlex.split(words)) if kind == "run with" else (),
            )
        )
    return found


def script(page: Path) -> str:
    """Return one script for all blocks of a page that are run; empty if there are none."""
    parts = [(block, block.script) for block in blocks(page)]
    return "\n".join(f"echo '=== {b.page}:{b.line}'\n{text}" for b, text in parts if text is not None)
