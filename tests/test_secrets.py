"""Secrets of the environment do not appear in run folder, W&B files, report, output or process arguments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Cli

# None matches a known token format, so each must be omitted, or hidden because of its variable's name.
SECRETS = {
    "WANDB_API_KEY": "canary-wandb-2c7be1f0a96d4e0b8f3a5d1c9e7b60f4aa",
    "HF_TOKEN": "canary-huggingface-91d0c4be55f2",
    "DEEPSEEK_API_KEY": "canary-deepseek-e83f61a7d20b",
    "RUNPOD_API_KEY": "canary-runpod-0f4d7c6b1e95",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-7a3e9d5c1b20",
}
RUN = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=offline",
    "policy_gradient.updates=2",
    "policy_gradient.episodes_per_update=64",
    "policy_gradient.eval_every=2",
    "policy_gradient.eval_limit=32",
    "policy_gradient.save_every=1",
    "policy_gradient.record=true",
)


def files_with(folder: Path, needles: Iterator[str] | list[str]) -> list[Path]:
    """Return the files below `folder` that contain one of the texts in UTF-8 or UTF-16."""
    wanted = [needle.encode(coding) for needle in needles for coding in ("utf-8", "utf-16-le")]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(needle in content for needle in wanted):
                found.append(path)
    return found


def test_the_search_finds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"\0\1" + SECRETS["HF_TOKEN"].encode() + b"\2")
    assert files_with(tmp_path, list(SECRETS.values())) == [tmp_path / "folder" / "file"]


@pytest.mark.slow
def test_secrets_do_not_appear(cli: Cli, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / ".cache")}
    out, err = tmp_path / "stdout", tmp_path / "stderr"
    process = cli.start(*RUN, env={**SECRETS, **places})
    arguments: set[str] = set()
    had_secrets: set[str] = set()
    while process.poll() is None and not _is_over(cli):
        for member in psutil.Process(process.pid).children(recursive=True):
            try:
                arguments.add(" ".join(member.cmdline()))
                if member.environ().get("HF_TOKEN") == SECRETS["HF_TOKEN"]:
                    had_secrets.add(member.name())
            except psutil.Error:  # it has just ended
                continue
        time.sleep(0.2)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    out.write_text(output)
    err.write_text(errors)
    assert len(arguments) >= 3  # actor, learner, W&B's service
    assert had_secrets  # the processes had the secrets in their environment
    assert not [line for line in arguments if any(secret in line for secret in SECRETS.values())]

    (run,) = cli.runs()
    seen = [path for path in run.rglob("*") if path.is_file()]
    for needed in ("config.yaml", "manifest.json", "report.html", "report.md", "summary.json", "logs/learner.log"):
        assert run / needed in seen
    assert [path for path in seen if path.suffix == ".wandb"]
    assert files_with(tmp_path, list(SECRETS.values())) == []


def _is_over(cli: Cli) -> bool:
    """Return whether the report was written, the last file of a run."""
    return any((run / "report.html").exists() for run in cli.runs())
