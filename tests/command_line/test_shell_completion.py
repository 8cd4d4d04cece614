"""The scripts of `--completion` complete words in a real shell."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cli import main
from grpo_gsm8k.command_line.shell_completion import script

ASK = """\
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $3 == whole ]] && COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
_grpo_gsm8k
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "completion.bash"
    path.write_text(script("bash"))
    return path


def replies(bash_script: Path, line: str, breaks: str = "default") -> list[str]:
    words = ["bash", "--norc", "-c", ASK, "bash", str(bash_script), line, breaks]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("comm", ["command="]),
        ("learner.lora.ra", ["learner.lora.rank="]),
        ("command=ev", ["eval "]),
        ("preset=", ["cpu_demo", "cpu_smollm2", "one_gpu", "two_gpu"]),
        ("recipe=tur", ["turkish_grpo_lora "]),
        ("scale=", ["cpu", "full"]),
        ("policy_gradient=rl", ["rloo "]),
        ("wandb.mode=of", ["offline", "off"]),
        ("policy_gradient.record=t", ["true "]),
        ("--mul", ["--multirun "]),
        ("no_such", []),
    ],
)
def test_bash(bash_script: Path, typed: str, found: list[str]) -> None:
    assert sorted(replies(bash_script, f"grpo-gsm8k seed=1 {typed}")) == sorted(found or [""])


def test_bash_without_the_equals_sign_as_a_word_break(bash_script: Path) -> None:
    assert replies(bash_script, "grpo-gsm8k command=ev", "whole") == ["command=eval "]


def typed_in(shell: list[str], keys: list[str], seen: str) -> str:
    """Type the keys in a terminal, until `seen` is printed; returns everything that was printed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(shell[0], shell, {**os.environ, "TERM": "dumb", "HISTFILE": "", "PS1": "$ "})
    printed, deadline = "", time.monotonic() + 60
    try:
        for key in keys:
            os.write(terminal, key.encode())
            time.sleep(0.5)  # a key during a completion would be part of its word
        while seen not in printed and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                printed += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return printed


KEYS = ["grpo-gsm8k comm\t", "ev\t", "pres\t", "cpu_d\t", "recipe=tur\t", "--mul\t", "wandb.mode=onl\t", "\n"]
SHOW = "grpo-gsm8k() { printf '<%s>' \"$@\"; echo END; }\n"
COMPLETED = "<command=eval><preset=cpu_demo><recipe=turkish_grpo_lora><--multirun><wandb.mode=online>END"


def test_the_tab_key_in_bash(bash_script: Path) -> None:
    start = f"source {bash_script}; {SHOW}"
    assert COMPLETED in typed_in(["bash", "--norc", "--noprofile", "-i"], [start, *KEYS], COMPLETED)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_tab_key_in_zsh(tmp_path: Path) -> None:
    (tmp_path / "completion.zsh").write_text(script("zsh"))
    start = f"autoload -Uz compinit; compinit -u -D; source {tmp_path}/completion.zsh; {SHOW}"
    assert COMPLETED in typed_in(["zsh", "-f", "-i"], [start, *KEYS], COMPLETED)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_it_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)
    assert main(["--completion", shell, "seed=1"]) == 2
