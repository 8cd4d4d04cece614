"""The manifest: complete, free of secrets, one entry per start."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from grpo_gsm8k.tracking import hardware, manifest, run_folder
from grpo_gsm8k.tracking.redaction import redact

NOON = datetime(2030, 1, 2, 12, 0, 0)


def test_manifest_has_what_it_needs_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-secret-1")
    argv = ["cli.py", "command=policy_gradient", "hub.token=canary-secret-2", "--api-key", "canary-secret-3", "seed=5"]
    argv += ["x=https://me:canary-secret-4@host/repo", "note=canary-secret-1", "policy_gradient.max_new_tokens=9"]
    monkeypatch.setattr(sys, "argv", argv)
    run = run_folder.create(tmp_path, "demo")
    config = {"seed": 5, "path": Path("a/b"), "pair": (0.9, 0.95), "hub": {"token": "canary-secret-2"}}
    for _ in range(3):
        manifest.write_manifest(run, config, lambda: NOON)
    manifest.write_config(run, config)
    text = run.manifest.read_text()
    assert "canary-secret" not in text + run.config_yaml.read_text()
    written = json.loads(text)
    assert written["seed"] == 5
    assert written["command_line"][-1] == "policy_gradient.max_new_tokens=9"
    assert written["command_line"][-2] == "note=***"
    assert written["packages"]["transformers"]
    assert written["machine"]["ram_bytes"] > 2**28
    assert written["machine"]["cpu"]
    assert set(written["git"]) == {"sha", "dirty"}
    assert [resume["seed"] for resume in written["resumes"]] == [5, 5]
    assert yaml.safe_load(run.config_yaml.read_text())["pair"] == [0.9, 0.95]


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIT_SHA", raising=False)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", "-C", str(tmp_path), *identity, *arguments], text=True).strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    foreign = {"sha": None, "dirty": None}  # the commit of a project that merely contains the environment
    assert manifest.git_state(tmp_path) == foreign
    (tmp_path / "old.py").write_text("")
    git("add", "old.py")
    git("commit", "-q", "-m", "second")
    sha = git("rev-parse", "HEAD")
    assert manifest.git_state(tmp_path) == {"sha": sha, "dirty": False}
    (tmp_path / "new.py").write_text("")
    assert manifest.git_state(tmp_path) == {"sha": sha, "dirty": True}
    monkeypatch.setenv("PATH", "/nonexistent")  # an image without git
    monkeypatch.setenv("GIT_SHA", "abc")
    assert manifest.git_state(tmp_path) == {"sha": "abc", "dirty": None}
    assert hardware.machine_facts()["gpus"] == []


def test_redact_leaves_ordinary_values_alone() -> None:
    config = {"stop_token_ids": [1, 2], "token_budget": 5, "max_new_tokens": 9, "text": "monkey", "key": "", "n": None}
    assert redact(config) == config
