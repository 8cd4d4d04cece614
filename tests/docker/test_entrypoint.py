"""Entrypoint, health check and pip settings for a build, tested without a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO

ENTRYPOINT = str(REPO / "docker/entrypoint.sh")
KEEP_USER = {"HOST_UID": "0", "HOST_GID": "0"} if os.getuid() == 0 else {}  # these tests must not change /etc/passwd


def enter(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENTRYPOINT, *command],
        env={**os.environ, **KEEP_USER, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_execs_the_command() -> None:
    done = enter("sh", "-c", "exit 7")
    assert done.returncode == 7
    process = subprocess.Popen([ENTRYPOINT, "sleep", "600"], env={**os.environ, **KEEP_USER})
    until = time.monotonic() + 60
    while (
        b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0] and time.monotonic() < until
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # no shell is left that could ignore it
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_every_user_has_a_name_and_a_home() -> None:
    done = enter(sys.executable, "-c", "import getpass, os; print(getpass.getuser(), os.path.expanduser('~'))")
    assert done.stdout.split() == ["lab", "/home/lab"]


def test_small_shared_memory_causes_a_warning(tmp_path: Path) -> None:
    done = enter("true", SHM=str(tmp_path), MIN_SHM_MB=str(2**40))
    assert done.returncode == 0
    assert f"--shm-size={2**40}m" in done.stderr
    assert enter("true", SHM=str(tmp_path), MIN_SHM_MB="1").stderr == ""
    assert "/dev/shm has 0 MB" in enter("true", SHM=str(tmp_path / "absent"), MIN_SHM_MB="1").stderr


@pytest.mark.parametrize(
    ("gpus", "visible", "needle"),
    [
        *((0, None, "--gpus all"), (1, None, "preset=one_gpu"), (2, None, "")),
        *(
            (2, "1", "preset=one_gpu"),
            (4, "0,2", ""),
            (1, "0,1", "preset=one_gpu"),
            (2, "", "is empty and hides all 2"),
        ),
    ],
)
def test_gpus_are_counted(
    tmp_path: Path, gpus: int, visible: str | None, needle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    lines = "\\n".join(f"GPU {index}: NVIDIA H100 (UUID: GPU-{index})" for index in range(gpus))
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = --list-gpus ] && printf "{lines}"\n')
    tool.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = enter("true", PATH=path, ACCELERATOR="cuda", MIN_SHM_MB="0")
    assert done.returncode == 0
    assert (needle in done.stderr) if needle else done.stderr == ""
    assert enter("true", PATH=path, ACCELERATOR="cpu", MIN_SHM_MB="0").stderr == ""


@pytest.mark.parametrize(("driver", "refused"), [("575.57.08", True), ("580.65.06", False), ("[N/A]", False)])
def test_an_old_driver_is_refused(tmp_path: Path, driver: str, refused: bool) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = --list-gpus ] && printf "GPU 0: a\\nGPU 1: a\\n" || echo "{driver}"\n')
    tool.chmod(0o755)
    done = enter("echo", "started", PATH=f"{tmp_path}:{os.environ['PATH']}", ACCELERATOR="cuda", MIN_SHM_MB="0")
    assert (done.returncode, done.stdout) == ((2, "") if refused else (0, "started\n"))
    assert ("needs 580 or newer" in done.stderr) == refused


def health(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    values = {**os.environ, "ACCELERATOR": "cpu", "SHM": str(tmp_path), "ARTIFACTS": str(tmp_path), "MIN_FREE_MB": "1"}
    command = ["sh", str(REPO / "docker/healthcheck.sh")]
    return subprocess.run(command, env={**values, **environment}, capture_output=True, text=True, check=False)


def test_health(tmp_path: Path) -> None:
    done = health(tmp_path)
    assert (done.returncode, done.stdout) == (0, "healthy\n")
    assert list(tmp_path.iterdir()) == []  # no leftovers
    full = health(tmp_path, MIN_FREE_MB=str(2**40))
    assert full.returncode == 1
    assert "no checkpoint will fit" in full.stdout
    gone = health(tmp_path, ARTIFACTS=str(tmp_path / "absent"))
    assert gone.returncode == 1
    assert "cannot be written to" in gone.stdout


def test_pip_settings_of_a_machine_reach_a_build(tmp_path: Path) -> None:
    index = tmp_path / "mirror" / "simple"
    index.mkdir(parents=True)
    settings = (
        f"global.extra-index-url='file://{index} https://index.example/simple'\n"
        f":env:.cert='{tmp_path}/ca.pem'\n"
        "global.user='true'\n"
        "install.find-links='/no/such/folder'\n"
    )
    command = [sys.executable, str(REPO / "docker/check/pip_settings.py"), str(tmp_path / "out")]
    done = subprocess.run(command, input=settings, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == [
        f"{tmp_path}/ca.pem:/run/pip-cert.pem:ro",
        f"{tmp_path}/mirror:{tmp_path}/mirror:ro",
        f"{tmp_path}/out/pip.conf:/etc/pip.conf:ro",
    ]
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("PIP_")}, "PIP_CONFIG_FILE": "/dev/null"}
    shown = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env={**environment, "PIP_CONFIG_FILE": str(tmp_path / "out/pip.conf")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"global.extra-index-url='file://{index} https://index.example/simple'" in shown.replace("\\n", " ")
    assert "global.cert='/run/pip-cert.pem'" in shown
    assert "global.user" not in shown


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root")
def test_root_is_dropped(tmp_path: Path) -> None:
    """Run in a separate mount namespace, with copies of the files that the entrypoint changes."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("needs mount namespaces")
    script = tmp_path / "inside.sh"
    script.write_text(
        f"""set -eu
cp -r /etc {tmp_path}/etc
mount --bind {tmp_path}/etc /etc
grep -q ^lab: /etc/passwd || {{ groupadd lab; useradd --gid lab --no-create-home lab; }}
mkdir {tmp_path}/volume
HOST_UID=4321 HOST_GID=4322 GRPO_VOLUME={tmp_path}/volume {ENTRYPOINT} sh -c 'id -u; id -g; id -un; umask'
stat --format %u:%g {tmp_path}/volume
"""
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4321", "4322", "lab", "0022", "4321:4322"]
