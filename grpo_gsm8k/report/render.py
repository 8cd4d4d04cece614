"""Rendering of a report as a self-contained HTML page, and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grpo_gsm8k.report.details import Details
from grpo_gsm8k.report.items import PairChanges, failed_kinds
from grpo_gsm8k.report.material import KIND_NAMES, Figure, FileLink, PanelGroup, Table
from grpo_gsm8k.report.tiles import Tile
from grpo_gsm8k.report.what_to_look_at import RunVerdict

HERE = Path(__file__).resolve().parent
UNITS = "%|h|min|s|points|million|thousand|billion"
UNIT_SPACE = re.compile(rf"(?<=\d) (?=(?:{UNITS})(?!\w))|(?<=min) (?=\d)|(?<=\bh) (?=\d)")
# plotly.js without 3D, maps and WebGL: 1.5 MB instead of 4.8 MB. From npm: plotly.js-cartesian-dist-min, version 4.1.1.
SCRIPTS = ("plotly-cartesian.min.js", "page.js", "details.js")


@dataclass(frozen=True, slots=True)
class Report:
    """The parts of a report in order. Tables and figures may be empty."""

    title: str
    headline: str
    tiles: tuple[Tile, ...]
    made: datetime
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    seeds: tuple[Table, ...]  # methods over seeds, their comparisons, and what differs between them
    methods: Table
    tables: tuple[Table, ...]  # evaluations, their comparisons, benchmarks
    curves: tuple[Figure, ...]
    groups: tuple[PanelGroup, ...]
    bars: tuple[Figure, ...]
    temperature: tuple[Figure, ...]
    grids: tuple[Figure, ...]
    questions: tuple[Figure, ...]
    errors: tuple[Figure, ...]
    error_table: Table
    changes: tuple[PairChanges, ...]
    settings: Table
    all_settings: Table
    provenance: Table
    files: tuple[tuple[str, tuple[FileLink, ...]], ...]  # by run
    details: Details
    verdicts: tuple[RunVerdict, ...] = ()

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures of the report."""
        panels = (figure for group in self.groups for figure in group.figures)
        return (*self.curves, *panels, *self.bars, *self.temperature, *self.grids, *self.questions, *self.errors)


def render_html(report: Report, live: str | None = None) -> str:
    """Render the page. All texts are escaped, and the content security policy allows only our own scripts.

    A page of the live server has the name of its build, `live`, and the script that asks for a newer one.
    """
    names = (*SCRIPTS, *(["live.js"] if live else []))
    scripts = tuple((HERE / name).read_text(encoding="utf-8") for name in names)
    page = _environment(autoescape=True).get_template("template.html.jinja")
    text = page.render(
        report=report,
        figures={figure.id: strict({"data": figure.data, "layout": figure.layout}) for figure in report.figures},
        details=strict(report.details.page_data()),
        live=live,
        kinds=failed_kinds(report.changes),
        kind_names=KIND_NAMES,
        runs=len(report.files),
        run_legend=next((figure.legend for figure in report.curves), ()),
        css=Markup("".join((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "details.css"))),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts) + ("; connect-src 'self'" if live else ""),
    )
    return _encodable(text)


def render_markdown(report: Report) -> str:
    """Render the tables and the numbers of the figures, without model texts."""
    return _encodable(_environment(autoescape=False).get_template("template.md.jinja").render(report=report))


def strict(value: Any) -> Any:
    """Return the value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(text: object) -> str:
    """Return a text for a Markdown table cell, on one line and without markup."""
    flat = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{c}" if c in r"\`*_[]|~#" else c for c in flat)


def unbroken(text: object) -> str:
    """Return a text whose numbers stay on one line with their units."""
    return UNIT_SPACE.sub("\u00a0", str(text))


def breakable(text: object) -> Markup:
    """Return a name, escaped, that may be broken after its separators but nowhere else."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", html.escape(str(text))))


def _environment(autoescape: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = cell
    made.filters["breakable"] = breakable
    made.filters["unbroken"] = unbroken
    return made


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"


def _encodable(text: str) -> str:
    """Replace unpaired surrogates, which model texts may contain."""
    return text.encode("utf-8", "replace").decode()
