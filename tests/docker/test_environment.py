"""The file .env.example lists every environment variable that is read."""

from __future__ import annotations

import re
from pathlib import Path

import dotenv

from tests.conftest import REPO

# Read by libraries, and meant for users.
OF_LIBRARIES = {
    "HF_TOKEN",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "XDG_CACHE_HOME",
}
# Only written, or set by the system.
NOT_SETTINGS = {
    "HOME", "USER", "LOGNAME", "PATH", "PWD", "HOSTNAME", "SECONDS", "BASH_SOURCE", "TMPDIR",
    "VLLM_ENABLE_V1_MULTIPROCESSING", "PYTHONPATH", "DEBIAN_FRONTEND", "LANG",
}  # fmt: skip
PYTHON = re.compile(r"(?:environ\.(?:get|setdefault|pop)\(|environ\[|getenv\()\s*['\"]([A-Z][A-Z0-9_]+)['\"]")
SHELL = re.compile(r"\$\{([A-Z][A-Z0-9_]+)(?::?[-+?=][^}]*)?\}|\$([A-Z][A-Z0-9_]+)")
SHELL_ASSIGNED = re.compile(r"^\s*(?:local |export |declare )?([A-Z][A-Z0-9_]*)=(?!\$\{\1)", re.MULTILINE)
MAKE = re.compile(r"^([A-Z][A-Z0-9_]+)\s*\?=", re.MULTILINE)
CONFIG = re.compile(r"_env: ([A-Z][A-Z0-9_]+)|oc\.env:([A-Z][A-Z0-9_]+)")


def names(pattern: re.Pattern[str], text: str) -> set[str]:
    return {next(filter(None, groups)) for match in pattern.finditer(text) if (groups := match.groups())}


def code(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(REPO.glob(pattern)) if ".venv" not in path.parts]


def read_anywhere() -> set[str]:
    """Return every variable that Python, shell, make, the configuration or compose reads."""
    found = set(OF_LIBRARIES)
    for path in code("cli.py", "grpo_gsm8k/**/*.py", "benchmarks/*.py", "scripts/*.py"):
        found |= names(PYTHON, path.read_text())
    for path in code("docker/*.sh", "docker/runpod/*.sh", "scripts/*.sh"):
        if path.name != "check.sh":  # its settings are for developers and documented in its header
            text = path.read_text()
            found |= names(SHELL, text) - names(SHELL_ASSIGNED, text)
    found |= names(MAKE, (REPO / "Makefile").read_text())
    for path in code("conf/**/*.yaml"):
        found |= names(CONFIG, path.read_text())
    compose = (REPO / "docker-compose.yml").read_text()
    found |= names(SHELL, compose) | set(re.findall(r"^  - ([A-Z][A-Z0-9_]+)$", compose, re.MULTILINE))
    return found - NOT_SETTINGS


def named() -> set[str]:
    """Return every variable in .env.example, including commented-out ones."""
    text = (REPO / ".env.example").read_text()
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)) | set(
        re.findall(r"\b([A-Z]+_[A-Z0-9_]+)\b", text)
    )


def test_every_variable_that_is_read_is_in_the_example() -> None:
    found = read_anywhere()
    assert {"DEEPSEEK_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "GIT_SHA", "PIP_FLAGS", "GRPO_RUN", "HOST_UID"} <= found
    missing = found - named()
    assert not missing, f"add to .env.example, with a comment: {sorted(missing)}"


def test_the_example_names_nothing_that_is_not_read() -> None:
    """Every variable with one of this project's prefixes is read."""
    ours = {name for name in named() if name.startswith(("GRPO_", "HOST_"))}
    assert ours <= read_anywhere()


def test_a_plain_copy_sets_nothing() -> None:
    """Copying .env.example to .env changes no behavior: the variables set there are empty secrets."""
    values = dotenv.dotenv_values(REPO / ".env.example")
    assert set(values.values()) == {""}
    assert set(values) == {"DEEPSEEK_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "PIP_EXTRA_INDEX_URL"}


def test_each_variable_has_a_comment() -> None:
    commented = False
    for line in (REPO / ".env.example").read_text().splitlines():
        if re.match(r"(# )?[A-Z][A-Z0-9_]+=", line):
            assert commented, line
        else:
            commented = line.startswith("#")
