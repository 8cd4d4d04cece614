"""Actors on the machines of a Ray cluster: Ray starts one `Host` on each, the rest is our own channel over TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import ray
import xxhash
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grpo_gsm8k.children.own_python import with_package
from grpo_gsm8k.cluster.dial_back import WorkerJob
from grpo_gsm8k.cluster.dial_in import DialIn, Expected
from grpo_gsm8k.cluster.host import Host, describe, folder_digests
from grpo_gsm8k.cluster.late_connection import LateConnection
from grpo_gsm8k.cluster.node import CALL_SECONDS, COPY_SECONDS, Node, NodeWriter, Stored
from grpo_gsm8k.cluster.ray_calls import NodeLostError, RayCalls
from grpo_gsm8k.cluster.remote_process import RemoteProcess
from grpo_gsm8k.errors import LabError, UserError, one_line
from grpo_gsm8k.runtime.actor_process import engine_variables
from grpo_gsm8k.runtime.process import Deadlines, Worker
from grpo_gsm8k.tracking.timeline import WEIGHTS
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Connected, Crashed, Span, WeightsLive

if TYPE_CHECKING:
    from types import TracebackType

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.cluster.host import Described
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.runtime.process import Deliver
    from grpo_gsm8k.transport.protocol import WeightsRef

CONNECT_SECONDS = 10.0
WATCH_SECONDS = 1.0  # between two looks at the cluster's machines
START_SECONDS = 120.0  # for a host to start: Ray starts a Python process for it
HOST_THREADS = 4  # a copy that takes long must not keep the end of a worker waiting
OPTIONS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def check_reachable(address: str) -> None:
    """Raise UserError if nothing answers at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:  # auto, or local
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"cluster.address={address}: {error} (start a cluster with: ray start --head)") from None


def difference(there: Described, here: Described) -> str:
    """Return what differs between two installations."""
    pairs = zip(there.packages, here.packages, strict=True)
    return ", ".join(f"{a} instead of {b}" for a, b in pairs if a != b) or "other code of this package"


class RayPlacement:
    """Hosts on all machines of the cluster that have what we need; use it in a `with` statement.

    Machines that join later are used; those that leave are noticed by Ray, and by the end of their connections.
    """

    def __init__(self, config: Config, owner: Path) -> None:
        """Connect to nothing yet."""
        self._config = config
        self._owner = owner
        self._nodes: dict[str, Node] = {}
        self._ending: list[threading.Thread] = []
        self._joining: set[str] = set()  # ids of machines whose host is being started
        self._calls = RayCalls()
        self._stored = Stored(self._calls)
        self._closing = threading.Event()
        self._refused: set[str] = set()  # ids of machines with another installation
        self._problems: dict[str, str] = {}  # by address: why a machine is not used
        self._digests: dict[str, dict[str, str]] = {}  # of model folders, by path
        self._none_since: float | None = None  # since when no actor has a place

    def __enter__(self) -> Self:
        """Connect to the cluster and begin to start hosts. Raises UserError if it cannot be reached."""
        os.environ.update(OPTIONS)
        cluster = self._config.cluster
        check_reachable(cluster.address)
        try:
            context = ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RayError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"cluster.address={cluster.address}: {reason} (start one with: ray start --head)") from None
        self._here = ray.get_runtime_context().get_node_id()
        interface = cluster.interface or context.address_info["node_ip_address"]
        self._dial_in = DialIn(interface)
        self._described = describe()
        threading.Thread(target=self._watch, name="cluster", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all hosts, which end their workers and delete their folders."""
        self._closing.set()
        self._dial_in.close()
        for thread in self._ending:
            thread.join(CALL_SECONDS)
        self._calls.close(CALL_SECONDS)
        closing = [node.host.close.remote() for node in self._known() if node.alive]
        ray.wait(closing, num_returns=len(closing), timeout=CALL_SECONDS) if closing else None
        ray.shutdown()

    def spawn_actor(self, config: Config, spec: EngineSpec, logs: Path, index: int, deliver: Deliver) -> Worker | None:
        """Start the actor process `actor-<index>` on the machine with the fewest; None if no machine has a place.

        Raises UserError if none had one for `cluster.wait_s`; its text says why machines are not used.
        """
        found = self._place()
        if found is None:
            self._check_wait(config.cluster.wait_s)
            return None
        node, place = found
        self._none_since = None
        return self._start(node, place, config, spec, logs, f"actor-{index}", deliver)

    def _check_wait(self, wait_s: float) -> None:
        """Raise UserError if no engine runs, and none has had a place for `wait_s` seconds."""
        if any(node.places for node in self._known()):
            self._none_since = None
            return
        self._none_since = self._none_since or time.monotonic()
        if time.monotonic() - self._none_since > wait_s:
            reasons = [f"{address} {reason}" for address, reason in sorted(self._problems.items())]
            raise UserError(
                f"no machine of the cluster had a place for an engine for {wait_s:g} s: "
                f"{'; '.join(reasons) or 'see `ray status`, cluster.resources and cluster.actors_per_node'}"
            )

    def _known(self) -> list[Node]:
        """Return all machines; a copy, because threads add to them."""
        return list(self._nodes.values())

    def delete(self, ref: WeightsRef) -> None:
        """Delete weights that no actor may load anymore, on all machines."""
        self._forget(ref.path)
        weights.delete(ref)

    def discard(self, ref: WeightsRef) -> None:
        """Delete damaged weights, on all machines."""
        self._forget(ref.path)
        weights.discard(ref)

    def _forget(self, path: str) -> None:
        self._stored.forget(path)
        for node in self._known():
            if node.alive:
                node.forget(path)

    def _place(self) -> tuple[Node, int] | None:
        """Return the machine with the fewest actors, and its first free place; this machine last of equal ones."""
        places = range(self._config.cluster.actors_per_node)
        free = [node for node in self._known() if node.alive and len(node.places) < len(places)]
        if not free:
            return None
        node = min(free, key=lambda candidate: (len(candidate.places), candidate.here, candidate.node_id))
        return node, next(place for place in places if place not in node.places)

    def _start(
        self, node: Node, place: int, config: Config, spec: EngineSpec, logs: Path, name: str, deliver: Deliver
    ) -> Worker:
        reader, writer = LateConnection(), LateConnection()
        process = RemoteProcess(uuid.uuid4().hex, name, node, (reader, writer), self._dial_in, logs, self._ending)
        node.places[place] = process
        worker: Worker
        copies: dict[int, float] = {}  # by version: when its copy began

        def on_message(message: object) -> None:
            if message is None:
                process.ended.set()
            elif isinstance(message, WeightsLive) and message.ref.version in copies:
                began = copies.pop(message.ref.version)
                name = f"publish to live on {node.address}"
                deliver(worker, Span.since(name, message.ref.version, began, f"{WEIGHTS}{process.name}"))
            deliver(worker, node.original(message))

        def copied(version: int, began: float) -> None:
            copies.setdefault(version, began)

        def failed(reason: str) -> None:
            deliver(worker, Crashed(reason, fatal=False, user_error=False))
            reader.abort()

        def connected(pid: int) -> None:
            process.pid = pid
            deliver(worker, Connected(pid, node.address))

        channel = Channel(
            reader,
            NodeWriter(writer, node, copied, failed),
            start=False,
            deliver=on_message,
            on_closed=lambda: on_message(None),
        )
        deadlines = Deadlines(config.actor.start_timeout_s, config.actor.progress_timeout_s)
        worker = Worker(name, process, channel, deadlines)
        self._dial_in.expect(process.worker_id, Expected(reader, writer, connected))
        job = WorkerJob(self._dial_in.address, self._dial_in.key, process.worker_id, tuple(config.actor.cores), spec)
        start = (node, process, job, config, place, spec.model_folder, failed)
        threading.Thread(target=self._start_there, args=start, daemon=True).start()
        channel.start()
        return worker

    def _start_there(
        self, node: Node, process: RemoteProcess, job: WorkerJob, config: Config, place: int, folder: str, failed: Any
    ) -> None:
        """Copy the model if the machine lacks it, then start the worker; in a thread, because both take time."""
        actor = config.actor
        on_gpus = actor.device.startswith("cuda:")
        gpus = tuple(range(actor.first_device(place), actor.first_device(place + 1))) if on_gpus else ()
        try:
            model = self._model_there(node, folder)
            node.call("start", process.name, job, engine_variables(config), model, gpus)
        except NodeLostError:
            self._lose(node)
        except (OSError, LabError, RayError) as error:
            failed(f"{process.name} could not be started on {node.address}: {one_line(str(error))}")

    def _model_there(self, node: Node, folder: str) -> str:
        """Return the path of the model folder on a machine, after copying it there if need be."""
        if node.here:
            return folder
        if folder not in self._digests:
            self._digests[folder] = folder_digests(Path(folder))
        digests = self._digests[folder]
        if node.call("has_folder", folder, digests, seconds=COPY_SECONDS):
            return folder
        return node.copy_of(folder, f"model/{xxhash.xxh3_64_hexdigest(repr(digests).encode())}")

    def _watch(self) -> None:
        """Start hosts on machines that joined, and note those that left, until the run ends."""
        while not self._closing.wait(WATCH_SECONDS):
            try:
                with self._calls.running():
                    listed = {row["NodeID"]: row for row in ray.nodes() if row["Alive"]}
            except RayError:
                continue
            except NodeLostError:  # the run is ending
                return
            for node in self._known():
                if node.alive and (node.node_id not in listed or not node.answers()):
                    self._lose(node)
            for node_id, row in listed.items():
                known = self._nodes.get(node_id)
                usable = (known is None or not known.alive) and self._has_resources(row["Resources"])
                if usable and node_id not in self._joining | self._refused:
                    self._joining.add(node_id)
                    address = row["NodeManagerAddress"]
                    threading.Thread(target=self._add, args=(node_id, address), daemon=True).start()

    def _has_resources(self, resources: dict[str, float]) -> bool:
        return all(resources.get(name, 0.0) >= amount for name, amount in self._config.cluster.resources.items())

    def _add(self, node_id: str, address: str) -> None:
        """Start a host on a machine, in a thread of its own; if that fails, it is tried again at the next look."""
        try:
            self._start_host(node_id, address)
        finally:
            self._joining.discard(node_id)

    def _start_host(self, node_id: str, address: str) -> None:
        resources = dict(self._config.cluster.resources)
        options = {
            "num_cpus": resources.pop("CPU", 0),
            "num_gpus": resources.pop("GPU", 0),
            "resources": resources,
            "max_concurrency": HOST_THREADS,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
            "runtime_env": {"env_vars": {**OPTIONS, "PYTHONPATH": with_package(os.environ).get("PYTHONPATH", "")}},
        }
        try:
            with self._calls.running():
                host = ray.remote(Host).options(**options)
                actor = host.remote(str(self._config.shm), f"{self._owner}.{node_id[:8]}")
                description = actor.describe.remote()
            described = self._calls.get(description, START_SECONDS)
        except NodeLostError:  # the run is ending
            return
        except RayError as error:  # a machine that has just left still counts as alive for a while
            self._problems[address] = f"could not start our process: {one_line(str(error))}"
            return
        if described != self._described:
            self._refused.add(node_id)
            self._problems[address] = f"has another installation: {difference(described, self._described)}"
            print(f"note: {address} is not used, it {self._problems[address]}", file=sys.stderr, flush=True)
            return
        self._problems.pop(address, None)
        self._nodes[node_id] = Node(node_id, address, actor, self._stored, node_id == self._here, self._calls)

    def _lose(self, node: Node) -> None:
        """Note that a machine is gone, and end the connections of its workers: their channels report that.

        Does nothing once the run is ending: calls fail then, and a host that counts as lost would not be closed.
        """
        if self._closing.is_set():
            return
        node.alive = False
        with contextlib.suppress(RayError, NodeLostError), self._calls.running():
            ray.kill(node.host)  # another one is started there if the machine comes back
        for process in list(node.places.values()):
            assert isinstance(process, RemoteProcess)
            for end in process.ends:
                end.abort()
