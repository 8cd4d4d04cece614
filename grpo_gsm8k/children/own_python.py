"""Starting another Python process that imports this same package, whatever the working directory contains."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]  # the checkout, or the folder that the package is installed in


def module_command(module: str) -> list[str]:
    """Return `python -m module`, where `-P` keeps files of the working directory from replacing modules."""
    return [sys.executable, "-P", "-m", module]


def with_package(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with PYTHONPATH extended by this package, unless Python finds it without that."""
    if str(ROOT) in _site_folders():  # in PYTHONPATH it would come before the standard library
        return dict(environment)
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path}


def _site_folders() -> set[str]:
    return {os.path.realpath(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
