"""How fast this machine's CPU computes a model's products: measured once in about a second, then read from a file.

`~/.cache/grpo_gsm8k/cpu_rates.json` (below $XDG_CACHE_HOME if set) holds one measurement for each processor, number of
cores, torch, precision and set of widths. Deleting it measures again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.children.own_python import module_command, with_package
from grpo_gsm8k.errors import LabError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.tracking.hardware import cpu_name, package_version

if TYPE_CHECKING:
    from grpo_gsm8k.preflight.parameters import ModelShape

PROGRAM = "grpo_gsm8k.preflight.measure_cpu"
TIMEOUT_S = 120.0  # the import of torch takes seconds, much longer from a cold disk or on busy cores
# Of the rate of one thread for each further thread, where other processes keep the cores busy while it is measured.
ASSUMED_GAIN = 0.7


@dataclass(frozen=True, slots=True)
class CpuRates:
    """What one process reaches with so many threads."""

    threads: int
    generating: float  # FLOP/s of a block's matrix products with as many rows as sequences run at once
    learning: float  # the same with the rows of a micro-batch
    reading: float  # bytes of weights per second in products with a single row, which wait for the memory
    values: float  # float32 values per second through an elementwise operation, its data in memory
    small_ops: float  # operations per second that compute next to nothing: Python and the dispatch of torch


@dataclass(frozen=True, slots=True)
class MachineRates:
    """Rates with one thread and with one per usable core."""

    one: CpuRates
    all: CpuRates

    @property
    def busy(self) -> bool:
        """Whether all threads together were hardly faster than one, as when other processes use the cores.

        Told by the elementwise operation: products of a narrow model gain little from many threads on idle cores, too.
        """
        return self.all.threads > 1 and self.all.values < (1 + ASSUMED_GAIN / 4) * self.one.values

    def assumed(self) -> MachineRates:
        """Return the rates with an assumed gain of further threads in place of the measured one."""
        gain = 1 + ASSUMED_GAIN * (self.all.threads - 1)
        one = self.one
        several = (one.generating * gain, one.learning * gain, one.reading, one.values * gain)
        return MachineRates(one, CpuRates(self.all.threads, *several, one.small_ops))

    def at(self, threads: int) -> CpuRates:
        """Return the rates with so many threads: those of one, and linearly more up to those of all cores."""
        part = min(1.0, max(0.0, (threads - 1) / max(1, self.all.threads - 1)))

        def between(low: float, high: float) -> float:
            return low + part * (max(low, high) - low)  # several threads that are slower were disturbed

        return CpuRates(
            threads,
            between(self.one.generating, self.all.generating),
            between(self.one.learning, self.all.learning),
            between(self.one.reading, self.all.reading),
            between(self.one.values, self.all.values),
            self.one.small_ops,
        )


@dataclass(frozen=True, slots=True)
class RateQuestion:
    """What is measured: the precision, layers, inputs and outputs of a block's linear layers, numbers of threads."""

    dtype: str
    layers: int
    linears: tuple[tuple[int, int], ...]
    threads: tuple[int, ...]


def cpu_rates(shape: ModelShape, dtype: str, cores: int) -> MachineRates | None:
    """Return the measured rates, from the file or by measuring now; None if torch cannot be run to measure them.

    If the cores were busy with other processes, what several threads reach is assumed, said, and not kept.
    """
    linears = tuple((linear.inputs, linear.outputs) for linear in shape.linears)
    question = RateQuestion(dtype, shape.layers, linears, (1, cores))
    file = rates_file()
    kept, key = _kept(file), _key(question)
    found = _parse(kept.get(key))
    if found is None:
        measured = _measure(question)
        found = _parse(measured)
        if found is None:
            print("preflight: the CPU's rates could not be measured", file=sys.stderr)
        elif found.busy:
            print("preflight: the cores were busy while their rates were measured: assumed", file=sys.stderr)
            found = found.assumed()
        else:
            _keep(file, kept | {key: measured})
    return found


def rates_file() -> Path:
    """Return the path of the file with the measurements of this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "grpo_gsm8k" / "cpu_rates.json"


def _keep(file: Path, measurements: dict[str, Any]) -> None:
    """Write the file, privately; where that is impossible, they are measured again next time."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, json.dumps(measurements, indent=1), mode=0o600)
    except (OSError, LabError) as error:
        print(f"preflight: the CPU's rates are not kept: {error}", file=sys.stderr)


def _key(question: RateQuestion) -> str:
    widths = ",".join(f"{inputs}x{outputs}" for inputs, outputs in question.linears)
    facts = (
        cpu_name(),
        f"{question.threads[-1]} cores",
        f"torch {package_version('torch')}",
        question.dtype,
        f"{question.layers} layers",
        widths,
    )
    return "; ".join(facts)


def _measure(question: RateQuestion) -> list[Any]:
    """Return the rates as plain values; [] if the program fails."""
    command = [*module_command(PROGRAM), json.dumps(asdict(question))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=with_package(os.environ)
        )
    except (subprocess.SubprocessError, OSError):
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


def _kept(file: Path) -> dict[str, Any]:
    """Return the measurements in the file; none if it is missing or damaged, as they can be measured again."""
    try:
        content = read_json(file)
    except (LabError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _parse(values: Any) -> MachineRates | None:
    """Return the two measurements; None for anything else, or figures that are not positive."""
    try:
        one, every = (CpuRates(**each) for each in values)
        positive = all(rate > 0 for found in (one, every) for rate in astuple(found))
        return MachineRates(one, every) if positive else None
    except (TypeError, ValueError):
        return None
