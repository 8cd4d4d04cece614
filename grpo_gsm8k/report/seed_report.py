"""The part of a report about methods with several seeds."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_gsm8k.report import seed_tables
from grpo_gsm8k.report.material import Material, Table
from grpo_gsm8k.report.seed_groups import SeedGroups, group_runs


@dataclass(frozen=True, slots=True)
class MethodsOverSeeds:
    """Groups, their tables, and sentences about them; tables without rows and no sentences for a single run."""

    groups: SeedGroups
    tables: tuple[Table, ...]
    findings: tuple[str, ...]


def methods_over_seeds(material: Material, usd_per_gpu_hour: float) -> MethodsOverSeeds:
    """Group the runs of a report and compare the methods."""
    if len(material.runs) == 1 and material.runs[0].command != "eval":
        return MethodsOverSeeds(empty := SeedGroups((), ()), (seed_tables.methods_table(empty, 0.0),), ())
    groups = group_runs(material.runs)
    pairs = seed_tables.method_pairs(groups, material.baseline, material.baseline is not material.runs[0])
    made = (
        seed_tables.methods_table(groups, usd_per_gpu_hour),
        seed_tables.pairs_table(pairs),
        seed_tables.keys_table(groups),
    )
    return MethodsOverSeeds(groups, made, seed_tables.findings(groups, pairs))
