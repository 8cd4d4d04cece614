"""The part of a report about methods with several seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grpo_gsm8k.report import seed_tables
from grpo_gsm8k.report.material import Material, Run, Table
from grpo_gsm8k.report.seed_curves import drawn_runs
from grpo_gsm8k.report.seed_groups import SeedGroups, group_runs


@dataclass(frozen=True, slots=True)
class MethodsOverSeeds:
    """Groups, the runs and means that curves show, tables, and sentences; without rows and sentences for one run."""

    groups: SeedGroups
    drawn: tuple[Run, ...]
    tables: tuple[Table, ...]
    findings: tuple[str, ...]


def methods_over_seeds(material: Material, usd_per_gpu_hour: float) -> MethodsOverSeeds:
    """Group the runs of a report and compare the methods."""
    runs = material.runs
    groups = group_runs(runs) if len(runs) > 1 or runs[0].command == "eval" else SeedGroups((), ())
    pairs = seed_tables.method_pairs(groups, material.baseline, material.baseline is not runs[0])
    made = (
        seed_tables.methods_table(groups, usd_per_gpu_hour),
        seed_tables.pairs_table(pairs),
        seed_tables.keys_table(groups),
    )
    groups = groups if len(runs) > 1 else replace(groups, notes=())  # nothing else to compare a single run with
    return MethodsOverSeeds(groups, drawn_runs(runs, groups), made, seed_tables.findings(groups, pairs))
