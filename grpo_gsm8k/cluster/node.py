"""A machine of the cluster as the run sees it: its host process, its copies of weights, and its places for actors."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.exceptions import RayError

from grpo_gsm8k.cluster.ray_calls import NodeLostError, RayCalls
from grpo_gsm8k.errors import LabError, one_line
from grpo_gsm8k.transport.protocol import Bundle, LoadWeights, WeightsRef

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 30.0  # for a call that only starts, ends or asks something
COPY_SECONDS = 600.0  # for a copy of a model


class CopyError(OSError):
    """A folder could not be copied to a machine; the text says why."""


class Stored:
    """Folders in Ray's object store, read from disk once each however many machines get a copy."""

    def __init__(self, calls: RayCalls) -> None:
        """Nothing is stored yet."""
        self._calls = calls
        self._lock = threading.Lock()
        self._folders: dict[str, dict[str, Any]] = {}

    def folder(self, path: str) -> dict[str, Any]:
        """Return the references of a folder's files by name. Raises OSError if it cannot be read."""
        with self._lock, self._calls.running():
            if path not in self._folders:
                files = [file for file in sorted(Path(path).iterdir()) if file.is_file()]
                self._folders[path] = {
                    file.name: ray.put(np.fromfile(file.resolve(), dtype=np.uint8)) for file in files
                }
            return self._folders[path]

    def forget(self, path: str) -> None:
        """Let Ray free the memory of a folder."""
        with self._lock:
            self._folders.pop(path, None)


@dataclass(eq=False)
class Node:
    """One machine. `here`: it is the one of this process, whose files need no copies."""

    node_id: str
    address: str
    host: Any  # Ray's handle of a Host
    stored: Stored
    here: bool
    calls: RayCalls
    alive: bool = True
    places: dict[int, object] = field(default_factory=dict)  # the worker of each taken place
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _copies: dict[str, Future[str]] = field(default_factory=dict)  # by path here: the path there
    _ping: Any = None
    _originals: dict[str, WeightsRef] = field(default_factory=dict)  # by path there

    def call(self, method: str, *arguments: object, seconds: float = CALL_SECONDS) -> Any:
        """Call a method of the host and wait for its result.

        Raises NodeLostError if the machine is gone or late, and what the method raises (which then is a RayError too).
        """
        try:
            with self.calls.running():
                result = getattr(self.host, method).remote(*arguments)
            return self.calls.get(result, seconds)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except RayError as error:
            raise NodeLostError(f"{self.address}: {type(error).__name__} within {seconds:g} s") from None

    def answers(self, seconds: float = 0.0) -> bool:
        """Whether the host still lives, as far as its answers within `seconds` tell; 0: those to earlier questions."""
        try:
            if self._ping is None or seconds:
                with self.calls.running():
                    self._ping = self.host.ping.remote()
            self.calls.get(self._ping, seconds)
        except ray.exceptions.GetTimeoutError:
            return not seconds
        except (RayError, NodeLostError):
            return False
        self._ping = None
        return True

    def tell(self, method: str, *arguments: object) -> None:
        """Call a method of the host without waiting; nothing happens if the machine is gone."""
        with contextlib.suppress(RayError, NodeLostError), self.calls.running():
            getattr(self.host, method).remote(*arguments)

    def copy_of(self, path: str, name: str) -> str:
        """Return the path of this folder's copy on the machine; made once, by the first thread that asks.

        Raises CopyError if it cannot be made, for all threads that wait; whoever asks after that tries again.
        """
        if self.here:
            return path
        with self._lock:
            first = path not in self._copies
            future = self._copies.setdefault(path, Future())
        if first:
            self._copy(path, name, future)
        return future.result()

    def _copy(self, path: str, name: str, future: Future[str]) -> None:
        """Make the copy, and give the future its path or a CopyError in any case: other threads wait for it."""
        reason = "interrupted"
        try:
            files = self.stored.folder(path)
            future.set_result(self.call("write", name, list(files), *files.values(), seconds=COPY_SECONDS))
        except (OSError, LabError, RayError) as error:
            reason = one_line(str(error))
        finally:
            if not future.done():
                with self._lock:
                    self._copies.pop(path, None)
                future.set_exception(CopyError(f"{path} could not be copied to {self.address}: {reason}"))
        if future.exception() is None and self._copies.get(path) is not future:  # nobody needs it any more
            self.tell("forget", future.result())

    def translated(self, message: object) -> object:
        """Return a message to a worker there, with the paths of the copies; makes them first."""
        if self.here:
            return message
        if isinstance(message, Bundle):
            return Bundle(tuple(self.translated(m) for m in message.messages))  # type: ignore[misc]
        if not isinstance(message, LoadWeights):
            return message
        path = Path(message.ref.path)
        copy = self.copy_of(message.ref.path, f"{path.parent.name}/{path.name}")
        self._originals[copy] = message.ref
        return LoadWeights(WeightsRef(message.ref.version, copy))

    def original(self, message: object) -> object:
        """Return a message from a worker there, with the path that weights have here."""
        ref = getattr(message, "ref", None)
        if ref is None or ref.path not in self._originals:
            return message
        return replace(message, ref=self._originals[ref.path])  # type: ignore[type-var]

    def forget(self, path: str) -> None:
        """Delete the copy of a folder, if there is one."""
        with self._lock:
            future = self._copies.pop(path, None)
        if future is not None and future.done() and future.exception() is None:
            self._originals.pop(future.result(), None)
            self.tell("forget", future.result())


@dataclass(frozen=True)
class NodeWriter:
    """The sending end of a worker's channel, in whose thread the copies of weights are made before their message.

    `failed` is called with the reason if one cannot be made: the worker would wait for it for ever.
    """

    writer: Any
    node: Node
    copied: Callable[[int, float], None]  # version, and when the copy began
    failed: Callable[[str], None]

    def send(self, obj: Any) -> None:
        """Send an object. Raises OSError when the worker or its machine is gone, or a copy cannot be made."""
        started = time.monotonic()
        try:
            message = self.node.translated(obj)
        except OSError as error:
            self.failed(str(error))
            raise
        if message is not obj:
            for loaded in (m for m in getattr(message, "messages", ()) if isinstance(m, LoadWeights)):
                self.copied(loaded.ref.version, started)
        self.writer.send(message)

    def close(self) -> None:
        """Close this end."""
        self.writer.close()
