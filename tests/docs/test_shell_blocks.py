"""Run the shell blocks of README.md and docs/ that work on a CPU, in a copy of the checkout. See `pages`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPO, SHELL, blocks, script

COMMANDS = ("python ", "make ", "git ", "docker ", "pip ", "curl ", "vllm ", "export ", "source ", "lm_eval ")
TIMEOUT = 900
# Writes the stamp of scripts/install.sh, so that the running environment counts as installed.
STAMP = 'echo "cpu $(cat requirements/cpu.txt requirements/dev.txt scripts/install.sh | cksum)" >"$GRPO_VENV/installed"'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shell_block_is_marked_as_one(page: Path) -> None:
    for block in blocks(page):
        if block.language not in SHELL and block.text.lstrip().startswith(COMMANDS):
            pytest.fail(f"{block.page}:{block.line} holds commands: start it with ```bash, so that it is run")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_run_is_shell(page: Path) -> None:
    subprocess.run(["bash", "-n"], input=script(page), text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if script(page)], ids=lambda page: page.name)
def test_the_blocks_run(page: Path, tmp_path: Path) -> None:
    checkout, venv = tmp_path / "checkout", tmp_path / "venv"
    copy_checkout(checkout)
    environment = environment_of(checkout, venv)
    words = ["bash", "-e", "-o", "pipefail", "-c", script(page)]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            words,
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        code = process.wait(timeout=TIMEOUT)
    finally:
        stop_group(process.pid)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0, f"exit code {code}:\n{said[-6000:]}"


def copy_checkout(target: Path) -> None:
    """Copy tracked and untracked files that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPO, check=True, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        source = REPO / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def environment_of(checkout: Path, venv: Path) -> dict[str, str]:
    """Return an environment in which `python` and `make` use the running interpreter, without network access."""
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"GRPO_VENV": str(venv), "FREE_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **own, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for name in ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "ARGS", "MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    subprocess.run(["sh", "-c", STAMP], cwd=checkout, env=environment, check=True)
    return environment


def stop_group(pid: int) -> None:
    """Kill processes that a block left running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
