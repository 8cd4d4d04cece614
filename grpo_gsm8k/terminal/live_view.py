"""The live display of a run as a renderable: a pure function of its state, the size of the terminal and the time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grpo_gsm8k.terminal import run_fields
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.terminal.safe_text import encodable, one_line, safe_text, shortened
from grpo_gsm8k.terminal.sparkline import ASCII, BLOCKS, sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from grpo_gsm8k.terminal.run_state import RunState
    from grpo_gsm8k.terminal.samples import ShownSample

MAX_WIDTH = 120
ECHO = 2  # columns that stay free: a terminal echoes Ctrl-C as "^C", and a line break would tear the display
TWO_COLUMNS = 74  # columns of the display from which measurements stand in pairs
LEFT = 18  # of the values on the left, which are single numbers
LABEL = 14
SAMPLE_LINES = 8  # of a completion, if the terminal has room for them


def live_view(state: RunState, width: int, height: int, now: float, ascii_only: bool = False) -> RenderableType:
    """Draw progress, measurements and sampled completions in at most `height` lines, if there are as many as 12."""
    width = max(min(width - ECHO, MAX_WIDTH), 1)
    levels = ASCII if ascii_only else BLOCKS
    rows: list[RenderableType] = [_cut(f"{name} ... {duration(now - begun)}", width) for name, begun in state.phases]
    if state.update or state.validations:
        rows += [*_progress(state, width, now), _curves(state, width, levels), _numbers(state, width)]
        used = len(rows) + 2 + math.ceil(len(run_fields.fields(state)) / (2 if width >= TWO_COLUMNS else 1))
        rows += _samples(state.samples, width, height - used, ascii_only)
    return Group(*rows)


def _progress(state: RunState, width: int, now: float) -> list[RenderableType]:
    head = Text(f"update {state.update}/{state.total}", style="bold")
    times = run_fields.times(state, now)
    room = width - head.cell_len - len(times) - 2
    bar = ProgressBar(total=max(state.total, 1), completed=state.update, width=max(room, 0))
    if room < 10:
        return [_cut(head.plain, width), _cut(times, width)]
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(head, bar, times)
    return [row]


def _curves(state: RunState, width: int, levels: str) -> RenderableType:
    """Return two rows: reward and validation, with their history as curves."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="dim", no_wrap=True, width=LABEL)
    room = max(width - LABEL - 1, 1)
    table.add_column(no_wrap=True, overflow="crop", max_width=room)
    table.add_row(state.curve_name, _with_curve(_newest(state), state.curve, room, levels))
    table.add_row("validation", _validation(state, room, levels))
    return table


def _newest(state: RunState) -> str:
    return f"{state.curve[-1]:.3f}" if state.curve else "-"


def _validation(state: RunState, room: int, levels: str) -> Text:
    if not state.validations:
        return Text("-")
    version, newest = state.validations[-1]
    shown = f"{run_fields.accuracy(newest)} at update {version}"
    known = [(v, value) for v, metrics in state.validations if (value := metrics.get("val/accuracy")) is not None]
    text = _with_curve(shown, [value for _, value in known] if len(known) > 1 else [], min(room, 70), levels)
    earlier = ", ".join(f"{v}: {100 * value:.1f}" for v, value in known[-4:-1])
    if earlier and text.cell_len + len(earlier) + 2 <= room:
        text.append(f"  {earlier}", style="dim")
    return text


def _with_curve(shown: str, values: tuple[float, ...] | list[float], room: int, levels: str) -> Text:
    text = Text(shown, no_wrap=True, overflow="crop")
    curve = sparkline(values, min(room - len(shown) - 2, 60), levels)
    return text.append(f"  {curve}", style="cyan") if curve else text


def _numbers(state: RunState, width: int) -> RenderableType:
    pairs = run_fields.fields(state)
    columns = 2 if width >= TWO_COLUMNS else 1
    table = Table.grid(padding=(0, 1, 0, 0))
    rest = max(width - columns * (LABEL + 1) - (columns - 1) * (LEFT + 1), 1)
    for room in (LEFT, rest)[-columns:]:
        table.add_column(style="dim", no_wrap=True, width=LABEL)
        table.add_column(no_wrap=True, overflow="crop", width=room)
    rows = math.ceil(len(pairs) / columns)
    padded = [*pairs, *[("", "")] * (rows * columns - len(pairs))]
    for row in range(rows):
        table.add_row(*(Text(part) for column in range(columns) for part in padded[row + column * rows]))
    return table


def _samples(samples: tuple[ShownSample, ...], width: int, room: int, ascii_only: bool) -> list[RenderableType]:
    """Return a panel for each sample; none where the terminal is too low for three lines of each."""
    shown = samples[: max(room // 5, 0)]
    if not shown:
        return []
    lines = min(room // len(shown) - 3, SAMPLE_LINES)  # without the frame and the question
    return [_panel(sample, width, max(lines, 1), ascii_only) for sample in shown]


def _panel(sample: ShownSample, width: int, lines: int, ascii_only: bool) -> Panel:
    inner = max(width - 4, 8)
    answer = f"answer {shortened(one_line(sample.extracted), 20)}" if sample.extracted else "no answer found"
    kind = "completion" if sample.of == "update" else "answer"
    title = f"{kind} at {sample.of} {sample.version}: reward {sample.reward:.3g}, {answer}"
    title += f", gold {shortened(one_line(sample.gold), 20)}"
    texts = [shortened(one_line(sample.question), inner), *_folded(sample.text, inner, lines)]
    if ascii_only:
        title, *texts = (encodable(text, "ascii") for text in (title, *texts))
    question, *answers = texts
    body = Group(_cut(question, inner, "dim"), *(_cut(line, inner) for line in answers))
    frame = box.ASCII if ascii_only else box.ROUNDED
    return Panel(body, title=_cut(title, inner - 2), title_align="left", width=width, box=frame)


def _folded(text: str, width: int, lines: int) -> list[str]:
    """Return a text in at most `lines` lines: its beginning and, where the answer is, its end."""
    folded = [
        line[start : start + width]
        for line in safe_text(text).split("\n")
        if line.strip()
        for start in range(0, len(line), width)
    ]
    if len(folded) <= lines:
        return folded
    end = (lines - 1) * 2 // 3
    return [*folded[: lines - 1 - end], "...", *(folded[-end:] if end else [])]


def _cut(text: str, width: int, style: str = "") -> Text:
    """Return one line of at most `width` columns."""
    line = Text(text, style=style, no_wrap=True, overflow="crop")
    line.truncate(max(width, 1), overflow="crop")
    return line
