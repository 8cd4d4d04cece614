"""Commands that compute nothing import none of the slow libraries, which take seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPO

SLOW = {"torch", "transformers", "vllm", "datasets", "sklearn", "pandas", "wandb"}
CODE = """
import sys
from cli import main
main(sys.argv[1:])
print("imported:", *sys.modules)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--cfg", "job", "command=policy_gradient", "preset=cpu_demo"],
        ["command=doctor", "preset=cpu_demo"],
    ],
)
def test_no_slow_library_is_imported(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *words], cwd=REPO, capture_output=True, text=True, check=True)
    before, _, modules = done.stdout.rpartition("imported:")
    assert before  # the command printed its result
    assert not SLOW & set(modules.split())
