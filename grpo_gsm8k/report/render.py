"""Rendering of a report as a self-contained HTML page, and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from grpo_gsm8k.report.items import PairChanges, failed_kinds
from grpo_gsm8k.report.material import KIND_NAMES, Figure, Table
from grpo_gsm8k.report.what_to_look_at import RunVerdict

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Report:
    """The parts of a report in order. Tables and figures may be empty."""

    title: str
    made: datetime
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    methods: Table
    tables: tuple[Table, ...]  # evaluations, their comparisons, benchmarks
    curves: tuple[Figure, ...]
    panels: tuple[Figure, ...]
    constant: tuple[str, ...]
    bars: tuple[Figure, ...]
    temperature: tuple[Figure, ...]
    grids: tuple[Figure, ...]
    questions: tuple[Figure, ...]
    errors: tuple[Figure, ...]
    error_table: Table
    changes: tuple[PairChanges, ...]
    settings: Table
    provenance: Table
    verdicts: tuple[RunVerdict, ...] = ()

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures of the report."""
        return (*self.curves, *self.panels, *self.bars, *self.temperature, *self.grids, *self.questions, *self.errors)


def render_html(report: Report) -> str:
    """Render the page. All texts are escaped, and the content security policy allows only our two scripts."""
    scripts = (get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8"))
    page = _environment(autoescape=True).get_template("template.html.jinja")
    text = page.render(
        report=report,
        figures={figure.id: strict({"data": figure.data, "layout": figure.layout}) for figure in report.figures},
        kinds=failed_kinds(report.changes),
        kind_names=KIND_NAMES,
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
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
    return made


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"


def _encodable(text: str) -> str:
    """Replace unpaired surrogates, which model texts may contain."""
    return text.encode("utf-8", "replace").decode()
