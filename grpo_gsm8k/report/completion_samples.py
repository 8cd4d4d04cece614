"""A sample of the training completions, for a table in the page: evenly spread over updates and within them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.material import KIND_NAMES, Run
from grpo_gsm8k.report.rollout_rows import read_table, rollout_files, rows_of

MAX_ROWS = 400  # of all runs together
MAX_BYTES = 180_000  # of their JSON
MAX_UPDATES = 20  # per run
HEAD, TAIL = 1200, 800  # characters of a text that stay of a longer one
REWARD_PART = "reward_"


@dataclass(frozen=True, slots=True)
class CompletionSamples:
    """The rows of the table, with the numbers of rows, updates and texts that are left out."""

    runs: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    caption: str


def completion_samples(
    runs: Sequence[Run], most_rows: int = MAX_ROWS, most_bytes: int = MAX_BYTES
) -> CompletionSamples | None:
    """Return the sampled completions of all runs that recorded rollouts; None without any."""
    files = {run.name: rollout_files(run.folder) for run in runs}
    known = [name for name in files if files[name]]
    if not known:
        return None
    rows: list[dict[str, Any]] = []
    recorded = 0
    for index, name in enumerate(known):
        recorded += sum(map(_count, files[name].values()))
        rows += _sample(index, files[name], most_rows // len(known), most_bytes // len(known))
    updates = len({(row["run"], row["update"]) for row in rows})
    cut = sum(isinstance(row[part], list) for row in rows for part in ("question", "text"))
    caption = (
        f"{len(rows):,} of {recorded:,} recorded completions are in this page, from {updates:,} of "
        f"{sum(map(len, files.values())):,} updates; all are in rollouts/ of the run folder."
    )
    if cut:
        caption += f" Of {cut:,} texts, the middle is left out, with the number of characters in its place."
    return CompletionSamples(tuple(known), tuple(rows), caption)


def _sample(run: int, files: dict[int, Path], most_rows: int, most_bytes: int) -> list[dict[str, Any]]:
    """Return rows of evenly spread updates, one of each, then a second of each, and so on up to a limit.

    The first row that does not fit ends the sample: with shorter ones in its place, it would favor short texts.
    """
    updates = collect.spread(list(files), MAX_UPDATES)
    each = math.ceil(most_rows / len(updates))
    rows = [[_shown(run, update, row) for row in _spread_rows(files[update], each)] for update in updates]
    places = [(at, nth) for nth in far_apart(each) for at in far_apart(len(updates)) if nth < len(rows[at])]
    chosen = []
    for place in places[:most_rows]:
        most_bytes -= page_bytes(rows[place[0]][place[1]])
        if most_bytes < 0:
            break
        chosen.append(place)
    return [rows[at][nth] for at, nth in sorted(chosen)]


def far_apart(count: int) -> list[int]:
    """Return 0 to count - 1 in an order of which each beginning is spread over the whole: first, last, middle, ..."""
    return sorted(range(count), key=lambda at: (at not in {0, count - 1}, f"{at:016b}"[::-1]))


def page_bytes(row: dict[str, Any]) -> int:
    """Return the size of a row in the page: JSON with `<`, `>`, `&` and `'` written as six characters each."""
    text = json.dumps(row)
    return len(text) + 5 * sum(text.count(c) for c in "<>&'")


def _count(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _spread_rows(path: Path, most: int) -> list[dict[str, Any]]:
    table = read_table(path)
    if table is None or most < 1:
        return []
    if "tokens" in table.column_names:
        lengths = pc.list_value_length(table["tokens"])
        table = table.drop_columns([c for c in ("tokens", "logprobs") if c in table.column_names])
        table = table.append_column("length", lengths)
    count = min(most, table.num_rows)
    return rows_of(table.take(pa.array([at * table.num_rows // count for at in range(count)], pa.int64())))


def _shown(run: int, update: int, row: dict[str, Any]) -> dict[str, Any]:
    parts = {name.removeprefix(REWARD_PART): row[name] for name in row if name.startswith(REWARD_PART)}
    versions = [row.get("version_min"), row.get("version_max")]
    return {
        "run": run,
        "update": update,
        "id": row.get("prompt_id"),
        "question": shortened(str(row.get("question", ""))),
        "gold": row.get("gold"),
        "text": shortened(str(row.get("text", ""))),
        "read": row.get("extracted"),
        "kind": row.get("kind"),
        "reward": row.get("reward"),
        "parts": parts,
        "advantage": row.get("advantage"),
        "versions": versions if versions[0] != versions[1] else versions[:1],
        "length": row.get("length"),
        "finish": row.get("finish_reason"),
    }


def shortened(text: str) -> str | list[Any]:
    """Return the text, or of a long one: its beginning, the number of characters left out, and its end."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else [text[:HEAD], left_out, text[-TAIL:]]


def kinds_in(samples: CompletionSamples) -> dict[str, str]:
    """Return the kinds of answers that occur, with their names."""
    seen = {row["kind"] for row in samples.rows}
    return {kind: name for kind, name in KIND_NAMES.items() if kind in seen}
