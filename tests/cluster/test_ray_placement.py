"""Machines that seem lost, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from grpo_gsm8k.cluster.node import Node, Stored  # noqa: E402
from grpo_gsm8k.cluster.ray_placement import RayPlacement  # noqa: E402
from tests.learner.conftest import small_config  # noqa: E402


def test_a_machine_that_does_not_answer_at_the_end_of_a_run_is_still_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: no call is allowed any more, so a look at the machines takes all of them for lost."""
    placement = RayPlacement(small_config("cluster=ray"), tmp_path)
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    nodes = [Node(name, name, name, Stored(placement._calls), False, placement._calls) for name in ("a", "b")]
    placement._lose(nodes[0])
    assert not nodes[0].alive
    assert killed == ["a"]
    placement._closing.set()
    placement._calls.close(1.0)
    assert not nodes[1].answers()
    placement._lose(nodes[1])
    assert nodes[1].alive
    assert killed == ["a"]
