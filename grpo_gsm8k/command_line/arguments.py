"""Options of the command line, in Hydra's spelling; everything else is `key=value`."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHELLS = ("bash", "zsh")


@dataclass(frozen=True, slots=True)
class Arguments:
    """A parsed command line."""

    words: tuple[str, ...]  # overrides
    help: bool
    cfg: bool
    package: str | None
    multirun: bool
    job: int | None
    completion: str | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Separate options from overrides. Raises UserError for an unknown option or a combination without effect."""
    parser = _build_parser()
    found, words = parser.parse_known_args(arguments)
    for word in words:
        if word.startswith("-"):
            raise UserError(_unknown_option(word, parser))
    given = Arguments(
        words=tuple(words),
        help=found.help,
        cfg=found.cfg is not None,
        package=found.package,
        multirun=found.multirun,
        job=found.job,
        completion=found.completion,
    )
    _check(given)
    return given


def option_names() -> list[str]:
    """Return the long options."""
    return [name for action in _build_parser()._actions for name in action.option_strings if name.startswith("--")]


def _build_parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--job", type=int)
    parser.add_argument("--completion", choices=SHELLS)
    return parser


def _unknown_option(word: str, parser: _Parser) -> str:
    known = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], known, 1)
    return f"{word}: unknown option; " + (f"did you mean {close[0]}?" if close else "see --help")


def _check(given: Arguments) -> None:
    if given.package is not None and not given.cfg:
        raise UserError("--package has no effect without --cfg job")
    if given.job is not None and not given.multirun:
        raise UserError("--job has no effect without --multirun")
    modes = {"--help": given.help, "--cfg": given.cfg, "--multirun": given.multirun}
    modes["--completion"] = given.completion is not None
    chosen = [name for name, is_set in modes.items() if is_set]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other: give one of them")
    if given.completion is not None and given.words:
        raise UserError(f"--completion takes no overrides: leave out {given.words[0]}")
