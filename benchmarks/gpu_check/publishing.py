"""Step 7: seconds from an update's end until the engine runs its weights, by part, five times."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_check.small_engine import engine_config, open_engine, open_publisher, requests, until_live
from grpo_gsm8k.transport import weights

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

TIMES = 5
SHARED_MEMORY = Path("/dev/shm")  # where a run publishes
RUNNING = 32  # requests whose contexts are computed again after a swap


def check(setup: Setup, record: Record) -> None:
    """Record the medians of publishing, verifying, loading, and the steps until the canary is back."""
    root = SHARED_MEMORY if SHARED_MEMORY.is_dir() else setup.folder
    with tempfile.TemporaryDirectory(prefix="gpu_check.", dir=root) as folder:
        for name, seconds in measure(setup, Path(folder) / "weights").items():
            record(f"{name}, median of {len(seconds)}", statistics.median(seconds))
            record(f"{name}, slowest", max(seconds))


def measure(setup: Setup, weights_folder: Path) -> dict[str, list[float]]:
    """Publish and load `TIMES` versions, and return the seconds of each part by its name."""
    from grpo_gsm8k.learner.model import load_policy

    config = engine_config(setup, "actor.canary_tolerance=1")
    folder = setup.random_model()
    policy = load_policy(folder, config.learner)
    publisher = open_publisher(weights_folder, policy, config)
    engine = open_engine(config, folder) if setup.engine else None
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
        verified = weights.verify(published.ref)
        timed("verify s", clock)
        if engine is not None:
            _load(engine, verified, version, timed)
        weights.delete(published.ref)  # shared memory has room for a few versions only
    return parts


def _load(engine: Any, verified: Any, version: int, timed: Any) -> None:
    """Load a version; from the second on under running requests."""
    clock = time.perf_counter()
    engine.load(verified)
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
