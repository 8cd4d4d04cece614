"""Step 7: seconds from an update's end until the engine runs its weights, by part, five times."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_check.small_engine import engine_config, open_engine, open_publisher, requests, until_live
from grpo_gsm8k.transport import weights

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

TIMES = 5
RUNNING = 32  # requests whose contexts are computed again after a swap


def check(setup: Setup, record: Record) -> None:
    """Record the medians of publishing, verifying, loading, and the steps until the canary is back."""
    from grpo_gsm8k.learner.model import load_policy

    config = engine_config(setup, "actor.canary_tolerance=1")
    folder = setup.random_model()
    policy = load_policy(folder, config.learner)
    publisher = open_publisher(_weights_folder(setup), policy, config)
    engine = None
    if setup.engine:
        engine = open_engine(config, folder)
    parts: dict[str, list[float]] = {}

    def timed(name: str, started: float) -> float:
        now = time.perf_counter()
        parts.setdefault(name, []).append(now - started)
        return now

    for version in range(1, TIMES + 1):
        clock = time.perf_counter()
        published = publisher.publish(version)
        clock = timed("publish s", clock)
        _record_fields(published, parts)
        weights.verify(published.ref)
        timed("verify alone s", clock)
        if engine is not None:
            _load(engine, published.ref, version, timed)
    for name, seconds in parts.items():
        record(name, statistics.median(seconds))
        if name == "publish s":
            record("slowest publish s", max(seconds))


def _load(engine: Any, ref: Any, version: int, timed: Any) -> None:
    """Load a version; from the second on under running requests."""
    clock = time.perf_counter()
    engine.load(ref)
    clock = timed("load s", clock)
    until_live(engine)
    timed("until live s", clock)
    if version == 1:
        for request in requests(RUNNING, 200):
            engine.add(request)


def _record_fields(published: Any, parts: dict[str, list[float]]) -> None:
    """Keep every number of seconds that the publisher reports itself, under its own name."""
    for name in getattr(type(published), "__dataclass_fields__", {}):
        value = getattr(published, name)
        if isinstance(value, float):
            parts.setdefault(f"publisher: {name}", []).append(value)


def _weights_folder(setup: Setup) -> Any:
    """Return a folder in shared memory, where a run publishes."""
    import tempfile
    from pathlib import Path

    root = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="gpu_check", dir=root)) if root.is_dir() else setup.folder / "weights"
