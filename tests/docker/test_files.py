"""The files in docker/, the compose file and the workflows, checked without a build."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grpo_gsm8k.tracking.redaction import SECRET_NAME
from tests.conftest import REPO

SCRIPTS = sorted(
    path.relative_to(REPO).as_posix()
    for folder in ("docker", "scripts", ".ci")
    for path in (REPO / folder).rglob("*")
    if path.suffix == ".sh" or path.name == "run"
)
DOCKERFILES = ("docker/Dockerfile", "docker/Dockerfile.cpu")
COMPOSE: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())
TEMPLATE: dict[str, Any] = json.loads((REPO / "docker/runpod/template.json").read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script: str) -> None:
    first = (REPO / script).read_text().splitlines()[0]
    shell = "sh" if first == "#!/bin/sh" else "bash"
    subprocess.run([shell, "-n", str(REPO / script)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_have_no_warnings(script: str) -> None:
    done = subprocess.run(["shellcheck", "-x", script], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return name and arguments of every instruction, with continuation lines joined and without comments."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", (REPO / dockerfile).read_text(), flags=re.MULTILINE))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images(dockerfile: str) -> None:
    found = instructions(dockerfile)
    values = {name: [text for other, text in found if other == name] for name, _ in found}
    assert re.fullmatch(r"BASE_IMAGE=\S+@sha256:[0-9a-f]{64}", values["ARG"][0])
    assert values["FROM"] == ["${BASE_IMAGE}"]
    assert sum("scripts/install.sh" in text for text in values["RUN"]) == 1  # what `make setup` calls
    assert not [text for text in values["RUN"] if "pip install" in text]
    assert json.loads(values["ENTRYPOINT"][0])[0] == "tini"
    assert values["USER"] == ["${START_USER}"]
    assert "START_USER=lab" in values["ARG"]
    assert "healthcheck.sh" in values["HEALTHCHECK"][0]
    assert json.loads(values["VOLUME"][0]) == ["/app/artifacts", "/cache"]
    assert values["LABEL"][0].count("org.opencontainers.image.") == 6
    named = re.findall(r"\b([A-Z][A-Z0-9_]*)=?", " ".join(values["ARG"] + values["ENV"]))
    assert not [name for name in named if SECRET_NAME.search(name)]


def test_secrets_and_large_folders_are_not_in_the_build_context() -> None:
    ignored = (REPO / ".dockerignore").read_text().split()
    assert {".git", ".env", ".venv", "artifacts", "wandb"} <= set(ignored)


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_services() -> None:
    from cli import load_config

    config = load_config(["command=policy_gradient", "preset=two_gpu"])
    services = COMPOSE["services"]
    assert set(services) == {"grpo", "cpu"}
    for service in services.values():
        assert service["init"] is True
        assert seconds(service["stop_grace_period"]) > config.stop_grace_s
        mounts = [volume.rpartition(":")[2] for volume in service["volumes"]]
        assert mounts == ["/app/artifacts", "/cache"]
        assert (REPO / service["build"]["dockerfile"]).is_file()
        assert all("=" not in name for name in service["environment"])  # names only, no values
    assert set(COMPOSE["volumes"]) == {"artifacts", "cache"}
    grpo = services["grpo"]
    (devices,) = grpo["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["count"], devices["capabilities"]) == ("all", ["gpu"])  # one GPU or several
    assert grpo["profiles"] == ["gpu"]  # `docker compose up` on a host without a GPU starts only cpu
    assert "profiles" not in services["cpu"]
    assert "CUDA_VISIBLE_DEVICES" in grpo["environment"]
    assert grpo["tty"]
    assert grpo["stdin_open"]
    assert "deploy" not in services["cpu"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
@pytest.mark.parametrize(("profiles", "found"), [([], {"cpu"}), (["--profile", "gpu"], {"cpu", "grpo"})])
def test_compose_accepts_the_file(profiles: list[str], found: set[str]) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "1"}
    command = ["docker-compose", "--file", str(REPO / "docker-compose.yml"), *profiles, "config"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) >= found
    assert all(service["environment"]["CUDA_VISIBLE_DEVICES"] == "1" for service in services.values())


def test_shared_memory_holds_the_weights_of_the_default_model() -> None:
    """Room for three versions of 1.54e9 bf16 parameters (Qwen2.5-Math-1.5B), one of them pinned by a validation."""
    version_gb = 1.54e9 * 2 / 1e9
    assert float(COMPOSE["services"]["grpo"]["shm_size"].removesuffix("gb")) > 3 * version_gb
    warned_below = next(
        text for name, text in instructions("docker/Dockerfile") if "MIN_SHM_MB" in text and name == "ENV"
    )
    assert int(re.findall(r"MIN_SHM_MB=(\d+)", warned_below)[0]) * 2**20 / 1e9 > 3 * version_gb


def test_the_pod_template_has_no_secrets_and_its_start_command_exists() -> None:
    assert TEMPLATE["dockerStartCmd"] == ["/app/docker/runpod/start.sh"]
    assert (REPO / "docker/runpod/start.sh").stat().st_mode & 0o111
    mount = TEMPLATE["volumeMountPath"]
    environment = TEMPLATE["env"]
    assert environment["GRPO_VOLUME"] == mount
    assert environment["HF_HOME"].startswith(environment["XDG_CACHE_HOME"])
    for name, value in environment.items():
        if SECRET_NAME.search(name):
            assert re.fullmatch(r"\{\{ RUNPOD_SECRET_\w+ \}\}", value), name
    from cli import load_config

    assert load_config(environment["GRPO_ARGS"].split()).command == "policy_gradient"


def test_workflows_call_make_targets_only() -> None:
    makefile = (REPO / "Makefile").read_text()
    for path in sorted((REPO / ".github/workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        assert commands
        for command in commands:
            found = re.fullmatch(r"(?:sudo (?:--preserve-env )?)?make ([a-z-]+)", command)
            assert found, command
            assert re.search(rf"^{found[1]}:", makefile, re.MULTILINE), command
    assert Path(REPO / ".github/workflows/ci.yml").is_file()


def test_no_shell_stands_between_make_and_a_run(tmp_path: Path) -> None:
    """`make demo` is the CPU image's command: the signal that stops a container must pass through make to Python."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    for target in ("demo", "pipeline"):
        command = ["make", "--dry-run", target, f"GRPO_VENV={tmp_path}"]
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1].startswith("exec env "), done.stdout
