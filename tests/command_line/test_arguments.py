"""Options are separated from overrides; what has no effect is refused."""

from __future__ import annotations

import pytest

from grpo_gsm8k.command_line.arguments import option_names, parse_arguments
from grpo_gsm8k.errors import UserError


def test_options_and_overrides_in_any_order() -> None:
    given = parse_arguments(["seed=1", "-m", "command=data", "--job", "3", "~x", "+y=-1"])
    assert given.words == ("seed=1", "command=data", "~x", "+y=-1")
    assert given.multirun
    assert given.job == 3
    assert not given.cfg
    short, long = parse_arguments(["-c", "job", "-p", "data", "a=b"]), parse_arguments(["--cfg=job", "--package=data"])
    assert (short.cfg, short.package, short.words) == (True, "data", ("a=b",))
    assert (long.cfg, long.package) == (True, "data")


def test_all_options_are_named() -> None:
    assert set(option_names()) == {"--help", "--cfg", "--package", "--multirun", "--job", "--completion"}


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["-x"], "-x: unknown option; see --help"),
        (["--multi-run"], "did you mean --multirun?"),
        (["-m", "--job", "one"], "invalid int value: 'one'"),
        (["-m", "--job", "1.5"], "invalid int value"),
        (["-m", "--job"], "expected one argument"),
        (["--job", "1"], "no effect without --multirun"),
        (["-m", "--cfg", "job"], "--cfg and --multirun exclude each other"),
        (["--cfg"], "expected one argument"),
    ],
)
def test_refused(words: list[str], needle: str) -> None:
    with pytest.raises(UserError, match=needle.replace("?", r"\?")):
        parse_arguments(words)
