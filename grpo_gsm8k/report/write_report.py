"""`command=report`: a page about one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.report import (
    collect,
    details,
    eval_figures,
    eval_tables,
    figures,
    grids,
    items,
    run_lookup,
    seed_curves,
    seed_report,
    tables,
)
from grpo_gsm8k.report.files_used import file_links
from grpo_gsm8k.report.headline import headline
from grpo_gsm8k.report.live_report import serve_report
from grpo_gsm8k.report.material import Material
from grpo_gsm8k.report.render import Report, render_html, render_markdown
from grpo_gsm8k.report.tiles import tiles
from grpo_gsm8k.report.training import training_groups
from grpo_gsm8k.report.what_to_look_at import verdicts
from grpo_gsm8k.tracking.run_folder import utc_now

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

USD_PER_GPU_HOUR = 2.5  # default for runs whose configuration has no price


def write_report(config: Config) -> int:
    """Write report.html and report.md about `report.runs`; returns exit code 0. Raises UserError."""
    section = config.report
    folders = run_lookup.find_runs(config.artifacts, section.runs)
    baseline = run_lookup.find_baseline(config.artifacts, section.baseline) if section.baseline else None
    if baseline is not None and baseline not in folders:
        raise UserError(f"report.baseline={section.baseline} is not among report.runs: add it there")
    target = section.output or output_folder(config.artifacts, folders)
    if section.live:
        return serve_report(
            lambda name: render_html(
                build(collect.collect(folders, baseline), section.usd_per_gpu_hour, section.title, target), live=name
            ),
            folders,
            target,
            section.port,
        )
    page = _write(folders, baseline, target, section.usd_per_gpu_hour, section.title)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, and {page.with_suffix('.md').name} next to it")
    return 0


def report_of_run(run_folder: Path) -> Path:
    """Write a report of one run into its folder, with its configured price and title; returns report.html."""
    folder = run_folder.resolve()
    section = collect.read_run(folder, folder.name).config.get("report") or {}
    price = section.get("usd_per_gpu_hour", USD_PER_GPU_HOUR)
    return _write([folder], None, folder, float(price), str(section.get("title", "Report")))


def output_folder(artifacts: Path, folders: Sequence[Path], clock: Callable[[], datetime] = utc_now) -> Path:
    """Return the run's folder, or a new folder for several runs."""
    return folders[0] if len(folders) == 1 else artifacts / "reports" / f"{clock():%Y%m%d-%H%M%S}"


def _write(folders: Sequence[Path], baseline: Path | None, target: Path, price: float, title: str) -> Path:
    report = build(collect.collect(folders, baseline), price, title, target)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "report.md", render_markdown(report))
    write_atomically(target / "report.html", render_html(report))
    return target / "report.html"


def build(
    material: Material,
    usd_per_gpu_hour: float,
    title: str,
    target: Path = Path(),
    clock: Callable[[], datetime] = datetime.now,
) -> Report:
    """Build all parts of a report that is written into the folder `target`."""
    runs = material.runs
    evaluations = {run.name for run in runs if run.command == "eval"}
    notes = list(material.notes)
    methods = seed_report.methods_over_seeds(material, usd_per_gpu_hour)
    groups = seed_curves.method_panels(methods.drawn, methods.groups, lambda drawn: training_groups(drawn, notes))
    return Report(
        title=title,
        headline=headline(runs, usd_per_gpu_hour),
        tiles=tiles(material, usd_per_gpu_hour),
        made=clock(),
        findings=methods.findings or tables.findings(material),
        notes=(*dict.fromkeys(notes), *methods.groups.notes),
        seeds=methods.tables,
        methods=tables.methods(material, usd_per_gpu_hour),
        tables=(
            eval_tables.evaluations_table(runs),
            eval_tables.any_temperature_table(runs),
            eval_tables.comparisons_table(runs),
            eval_tables.ways_table(runs),
            eval_tables.lm_eval_table(runs),
        ),
        curves=tuple(seed_curves.method_curves(methods.drawn, methods.groups)),
        groups=tuple(groups),
        bars=(*eval_figures.accuracy_bars(runs), *eval_figures.over_temperatures_bars(runs)),
        temperature=(*figures.temperature_curves(runs), *eval_figures.pass_at_curves(runs)),
        grids=tuple(grids.question_grids([s for s in material.merged if s.run in evaluations])),
        questions=tuple(figures.heat_map(material.merged)),
        errors=tuple(figures.error_kinds(material.shown)),
        error_table=tables.errors(material.shown),
        changes=tuple(items.changed_items(material.pairs)),
        settings=tables.configurations(runs),
        all_settings=tables.all_settings(runs),
        provenance=tables.provenance(runs),
        files=file_links(runs, target),
        details=details.details(material),
        verdicts=verdicts(runs),
    )
