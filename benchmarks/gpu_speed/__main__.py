"""Speed, utilization and memory of the learner: `make bench-gpu`.

One update of 64 prompts with 8 completions on models of Qwen2.5's shapes with random weights, full and LoRA, each in a
process of its own. On a CPU the same program runs with a tiny model. `--save` writes a baseline for this device,
`--gate` fails if a case is more than 15 % slower than it or needs more than 1 % more memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu_speed.baseline import FOLDER, Figures, baseline_file, compare, read_baseline, write_baseline
from benchmarks.gpu_speed.case_process import ROUNDS, Row, run_case
from benchmarks.gpu_speed.cases import ON_CPU, ON_GPU, Case
from benchmarks.gpu_speed.table import markdown


def main() -> int:
    """Measure all cases, print the table, and apply the gate if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_speed", description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of cases, as in 'qwen2.5-1.5b full'")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed updates per case, after an untimed one")
    parser.add_argument("--save", action="store_true", help="write the baseline of this device")
    parser.add_argument("--gate", action="store_true", help="compare with the baseline of this device")
    parser.add_argument("--baselines", type=Path, default=FOLDER, help="folder of the baselines")
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    options = parser.parse_args()
    if options.save and options.only:
        parser.error("--save writes all cases of this device: leave out --only")
    name, peak_flops, cases = this_device()
    unknown = set(options.only or []) - {case.name for case in cases}
    if unknown:
        parser.error(f"--only: unknown {sorted(unknown)}; this device has {[case.name for case in cases]}")
    cases = tuple(case for case in cases if not options.only or case.name in options.only)
    file = baseline_file(name, options.baselines)
    if options.gate and not file.exists():
        parser.error(f"--gate: {file} does not exist: make it with --save on a machine that does nothing else")
    results: dict[Case, Row | str] = {}
    for case in cases:
        results[case] = run_case(case, options.rounds)
        print(f"{case.name}: {'failed' if isinstance(results[case], str) else 'measured'}", flush=True)
    print(f"\n{name}\n\n{markdown(results, peak_flops)}\n")
    if options.output:
        rows = {case.name: row if isinstance(row, str) else asdict(row) for case, row in results.items()}
        options.output.write_text(json.dumps({"device": name, "cases": rows}, indent=2) + "\n", encoding="utf-8")
    failed = [case.name for case, row in results.items() if isinstance(row, str)]
    figures = {c.name: Figures(r.update_s, r.peak_mb) for c, r in results.items() if not isinstance(r, str)}
    return finish(file, figures, failed, options.gate, options.save, set(options.only or []))


def finish(file: Path, figures: dict[str, Figures], failed: list[str], gate: bool, save: bool, only: set[str]) -> int:
    """Compare and save as asked; returns the exit code. A case that failed fails the program and saves nothing."""
    lines = []
    if gate:
        baseline = {name: kept for name, kept in read_baseline(file).items() if not only or name in only}
        lines = compare(baseline, figures)
        print("\n".join(["gate:", *lines]) if lines else f"gate: within {file.name}")
    if save and not failed:
        write_baseline(file, figures)
        print(f"baseline: {file}")
    return 1 if failed or lines else 0


def this_device() -> tuple[str, float | None, tuple[Case, ...]]:
    """Return the device's name, its bf16 peak in FLOP/s (None: unknown), and the cases to measure on it."""
    import torch

    if not torch.cuda.is_available():
        return f"cpu {platform.machine()}", None, ON_CPU
    from grpo_gsm8k.preflight.devices import recognize

    properties = torch.cuda.get_device_properties(0)
    device = recognize(properties.name, properties.total_memory / 2**30)
    return properties.name, None if device is None else device.bf16_tflops * 1e12, ON_GPU


if __name__ == "__main__":
    sys.exit(main())
