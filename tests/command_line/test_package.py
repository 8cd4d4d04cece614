"""The package: what pyproject.toml declares, and a wheel that trains away from the checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPO
from tests.docs.test_shell_blocks import copy_checkout

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
BY_CHOICE = {"vllm", "tensorboard", "ray"}  # optional dependencies
# Part of the interface of a dependency, which requires them.
REQUIRED_BY = {"httpx2": "huggingface-hub", "markupsafe": "Jinja2", "pydantic_core": "pydantic", "sympy": "math-verify"}


def tracked(*folders: str) -> set[str]:
    words = ["git", "ls-files", *folders]
    return set(subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True).stdout.split())


def pins() -> dict[str, str]:
    """Return the versions in requirements/."""
    found = {}
    for path in (REPO / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith(("#", "-")):
                requirement = Requirement(line.partition(" #")[0])
                for one in requirement.specifier:
                    found[canonicalize_name(requirement.name)] = one.version
    return found


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(t for texts in project["optional-dependencies"].values() for t in texts)]
    return [Requirement(text) for text in [*texts, *PROJECT["dependency-groups"]["dev"]]]


def test_groups_and_dependencies_are_requirements_that_the_pins_satisfy() -> None:
    assert all(isinstance(text, str) for texts in PROJECT["dependency-groups"].values() for text in texts)
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: requirements/ has {version}"


def test_everything_imported_is_a_dependency() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    owners = packages_distributions()
    missing = {}
    for path in (REPO / "grpo_gsm8k").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {one.partition(".")[0] for one in names} - sys.stdlib_module_names - {"grpo_gsm8k", *BY_CHOICE}:
                owning = [REQUIRED_BY[name]] if name in REQUIRED_BY else owners.get(name, [])
                if not {canonicalize_name(owner) for owner in owning} & declared:
                    missing[name] = path.name
    assert missing == {}


def test_the_console_command_is_the_command_line() -> None:
    module, _, function = PROJECT["project"]["scripts"]["grpo-gsm8k"].partition(":")
    code = f"import {module} as entry; raise SystemExit(entry.{function}())"
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "policy_gradient" in done.stdout
    assert (
        "policy_gradient"
        in subprocess.run(
            [sys.executable, "cli.py", "--help"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built without a network, from a copy: a build leaves folders in its checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_checkout(folder / "checkout")
    words = ["wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=folder / "checkout", check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and the packages of the running one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    words = ["--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


@pytest.mark.slow
def test_the_wheel_contains_all_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in tracked("grpo_gsm8k") if (REPO / name).is_file()}
    conf = {f"grpo_gsm8k/{name}" for name in tracked("conf") if (REPO / name).is_file()}
    assert {"grpo_gsm8k/tiny/model/model.safetensors", "grpo_gsm8k/report/template.html.jinja"} <= package
    assert package | conf <= names
    extra = {name for name in names - package - conf if ".dist-info/" not in name}
    assert {name for name in extra if not (REPO / name).is_file()} == set()


@pytest.mark.slow
def test_the_wheel_trains_elsewhere(installed: Path, tmp_path: Path) -> None:
    """The working directory has another package of that name, which must not be used by any process."""
    other = tmp_path / "grpo_gsm8k"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('this is not the installed package')\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GIT_SHA")}

    def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(installed / "bin" / program), *words],
            cwd=tmp_path,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    where = run("python", "-P", "-c", "import grpo_gsm8k; print(grpo_gsm8k.__file__)").stdout
    assert where.startswith(f"{installed}/lib/")
    small = ("data.train_size=40", "data.val_size=8", "data.test_size=4", "policy_gradient.episodes_per_update=16")
    one = ("preset=cpu_demo", "policy_gradient.updates=1", *small)
    swept = run("grpo-gsm8k", "-m", "command=data", "preset=cpu_demo", *small)  # a job in a process of its own
    assert swept.returncode == 0, swept.stderr
    done = run("grpo-gsm8k", "command=policy_gradient", *one)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "artifacts" / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
    assert json.loads((folder / "manifest.json").read_text())["packages"]["grpo-gsm8k"] == PROJECT["project"]["version"]
    assert (folder / "report.html").stat().st_size > 100_000
    logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert str(REPO) + "/grpo_gsm8k" not in logs + done.stderr
