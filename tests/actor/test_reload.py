"""A reload that is skipped, or that leaves out one tensor, is found by the weight probe on the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.actor.small_models import save_small_model

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        pytest.param("llama", "float32", marks=pytest.mark.more),
        ("qwen3", "bfloat16"),
        pytest.param("gemma2", "float32", marks=pytest.mark.more),
    ],
)
def test_every_skipped_tensor_is_named(architecture: str, dtype: str, tmp_path: Path) -> None:
    model = save_small_model(architecture, tmp_path / "model")
    command = [sys.executable, str(HERE / "reload_scenario.py"), str(model), str(tmp_path), dtype]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)})
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors.pop("none") == errors.pop("none again") == ""
    assert "did not become live" in errors.pop("no-op")
    assert len(errors) > 15
    for name, error in errors.items():
        assert f"{name} of the engine differs from the file" in error
