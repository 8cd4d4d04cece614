"""The blocks of README.md and docs/*.md, and which of them run on a CPU.

Above a block, in an HTML comment: `not run: REASON`, or `run with: WORDS`. Of the words, `NAME=value` is a variable of
the environment, `key=value` an override that is put behind `python cli.py command=...`; readers of the source see what
differs from the page. A block without a comment runs as it stands. The blocks of a page are run one after another by
one shell.
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
    """One fenced block. `line` is that of its fence, `not_run` a reason, `words` what it is run with."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    words: tuple[str, ...]

    @property
    def script(self) -> str | None:
        """What a shell does with the block: run it, apply a patch, write a file; None for what is only to be read."""
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
    """All fenced blocks of a page."""
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
    """All that is run of a page, as one script; empty when there is nothing."""
    parts = [(block, block.script) for block in blocks(page)]
    return "\n".join(f"echo '=== {b.page}:{b.line}'\n{text}" for b, text in parts if text is not None)
