"""Completions per second that the orchestrator can pass on: `make bench-pool`.

The real pool, router, channels and event queue, with 64 engine processes that answer each request at once with long
completions, and a process in the learner's place that takes the results. The engines compute nothing, so what is
measured is the way between: pickling, pipes, threads and bookkeeping. Engines and learner use the same cores here; on
a machine with cores of their own the orchestrator's CPU time per completion is the limit, which is printed too.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from grpo_gsm8k.runtime.actor_pool import ActorPool
from grpo_gsm8k.runtime.process import Deadlines, EventQueue, Worker, end_workers, spawn
from grpo_gsm8k.runtime.restarts import Restarts
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Completion,
    GenerateGroup,
    GroupResult,
    Heartbeat,
    Ready,
    SamplingSpec,
    StartEngine,
    VersionSpan,
)

if TYPE_CHECKING:
    from grpo_gsm8k.transport.channel import Reader, Writer

H100_TOKENS_PER_S = 20_000  # of one engine with a small model, as assumed in docs/scaling.md
ENGINES_OF_THE_TARGET, TIMES = 8, 20
BEAT_SECONDS = 0.2
DEADLINES = Deadlines(600.0, 600.0)
OUTSTANDING = 4  # requests per engine


def main() -> int:
    """Run for some seconds, and print the rates."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool_speed", description=__doc__)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--group", type=int, default=8, help="completions per request")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per completion")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    events, results = EventQueue(), Counter[str]()
    sink = spawn("learner", drain, (), {}, DEADLINES, events.deliver)

    def to_learner(message: object) -> None:
        sink.channel.send(message)
        results["groups"] += isinstance(message, GroupResult)

    def start(index: int) -> Worker:
        return spawn(f"actor-{index}", answer, (options.group, options.tokens), {}, DEADLINES, events.deliver)

    restarts = Restarts("actor", 0, lambda kind, **fields: None, 0.0)
    pool = ActorPool(options.engines, start, restarts, to_learner, lambda _: None, lambda _: None)
    pool.start()
    pool.start_engines()
    while not all(worker.ready for worker in pool.actors):
        turn(pool, events)
    print(f"{options.engines} engines ready", flush=True)
    number = 0
    before, started, cpu_before = results["groups"], time.monotonic(), cpu_by_kind()
    while (elapsed := time.monotonic() - started) < options.seconds:
        while pool.router.outstanding < OUTSTANDING * options.engines:
            pool.router.from_learner(Bundle((request(number, options.group),)))
            number += 1
        turn(pool, events)
    groups = results["groups"] - before
    cpu = {kind: seconds - cpu_before.get(kind, 0.0) for kind, seconds in cpu_by_kind().items()}
    report(options, groups, elapsed, cpu)
    end_workers([*pool.actors, sink])
    return 0


def report(options: argparse.Namespace, groups: int, elapsed: float, cpu: dict[str, float]) -> None:
    """Print rates, the orchestrator's CPU time by kind of thread, and the target."""
    completions, seconds = groups * options.group, sum(cpu.values())
    tokens = completions * options.tokens
    target = TIMES * ENGINES_OF_THE_TARGET * H100_TOKENS_PER_S
    possible = tokens / seconds if seconds else 0.0
    memory = psutil.Process().memory_info().rss / 2**20
    print(f"{completions / elapsed:.0f} completions/s, {tokens / elapsed / 1e6:.2f} M tokens/s on these cores")
    print(f"orchestrator: {100 * seconds / elapsed:.0f} % of a core, {memory:.0f} MiB")
    print(f"  {1e6 * seconds / max(1, completions):.0f} microseconds of CPU per completion:")
    for kind, part in sorted(cpu.items(), key=lambda item: -item[1]):
        print(f"  {kind}: {100 * part / seconds:.0f} %")
    print(f"with a core of its own: {possible / 1e6:.2f} M tokens/s")
    reached = "reached" if possible >= target else "missed "
    print(f"{reached}  {TIMES} times what {ENGINES_OF_THE_TARGET} H100 make: {possible / target:.2f} of it")


def turn(pool: ActorPool, events: EventQueue) -> None:
    """Take one message, as the supervisor's loop does."""
    if event := events.next():
        worker, message = event
        if worker in pool.actors:
            pool.handle(worker, message)


def cpu_by_kind() -> dict[str, float]:
    """Return the CPU seconds of this process by the names of its threads."""
    seconds = {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}
    found: Counter[str] = Counter()
    for thread in threading.enumerate():
        if thread.native_id is not None:
            found[thread.name] += seconds.get(thread.native_id, 0.0)  # type: ignore[assignment]
    return dict(found)


def request(number: int, n: int) -> GenerateGroup:
    """Return a request that any engine may serve at once."""
    prompt = np.zeros(64, dtype=np.int32)
    return GenerateGroup(str(number), prompt, n, SamplingSpec(1.0, 1.0, 2048, 0, (1,)), 0, pinned=False)


def answer(reader: Reader, writer: Writer, group: int, tokens: int) -> None:
    """Main function of an engine process: answer every request at once."""
    channel = Channel(reader, writer, on_closed=leave)
    message: Any = channel.receive(600.0)
    assert isinstance(message, StartEngine)
    channel.send(Ready())
    rng = np.random.default_rng(0)
    completions = tuple(
        Completion(
            rng.integers(0, 150_000, tokens, dtype=np.int32),
            -rng.random(tokens, dtype=np.float32),
            "length",
            (VersionSpan(0, 0, tokens),),
        )
        for _ in range(group)
    )
    beat = time.monotonic()
    while True:
        message = channel.receive(BEAT_SECONDS)
        for item in getattr(message, "messages", ()):
            channel.send(GroupResult(item.request_id, completions))
        if time.monotonic() - beat > BEAT_SECONDS:
            beat = time.monotonic()
            channel.send(Heartbeat(int(beat * 10), True, beat, beat))


def drain(reader: Reader, writer: Writer) -> None:
    """Main function of the process in the learner's place: take all results."""
    channel = Channel(reader, writer, deliver=lambda _: None, on_closed=leave)
    while True:
        channel.receive(600.0)


def leave() -> None:
    """Exit when the benchmark has ended."""
    import os

    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
