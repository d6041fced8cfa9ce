"""A run on a terminal: progress, the reward's curve, the metrics that matter, where time goes, a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from posttrain.cli.progress import HEADLINE, SHARES, TROUBLE, Shown, headline, number, visible
from posttrain.evaluate.measures import MEASURES, measure_of
from posttrain.evaluate.measures import SHARES as MEASURE_SHARES

BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_ROWS = 3
PROPORTIONS = (*MEASURE_SHARES, "other_skills")  # what an evaluation reports in percent
STAGE_STYLES = ("cyan", "magenta", "yellow", "green", "blue", "white")
WIDEST = 110


class Live(Shown):
    """The picture, redrawn four times a second; notes and evaluations scroll by above it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.title = title
        self.stage = "loading the policy"  # what goes on before the first step
        self.at, self.steps = 0, 0
        self.started = time.monotonic()
        self.ended: list[float] = []  # when each step of this process ended
        self.rewards: list[float] = []
        self.metrics: Mapping[str, float] = {}
        self.timing: Mapping[str, float] = {}
        self.accuracy: list[tuple[str, Mapping[str, Any]]] = []
        self.shown_sample: tuple[str, str, float] | None = None
        self.live = RichLive(get_renderable=self.draw, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stage = ""
        self.live.stop()

    def note(self, line: str) -> None:
        self.console.print(Text.assemble(("· ", "dim"), visible(line)))

    def objective(self, lines: Sequence[tuple[str, str]]) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in lines:
            table.add_row(label, Text("\n".join(visible(line) for line in text.splitlines())))
        self.console.print(_framed(table, "objective", self.console.width))
        self.stage = "held-out evaluation before training"

    def begin(self, first_step: int, steps: int) -> None:
        self.at, self.steps, self.started = first_step - 1, steps, time.monotonic()

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        self.shown_sample = (prompt, completion, reward)

    def step(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        self.at, self.metrics = step, dict(metrics)
        self.timing = {stage: seconds for stage, seconds in timing.items() if stage != "total"}
        self.rewards.append(metrics.get("reward", float("nan")))
        self.ended.append(time.monotonic())

    def evaluation(self, when: str, results: Mapping[str, Any]) -> None:
        self.accuracy.append((when, results))
        self.console.print(Text.assemble(("· ", "dim"), (f"evaluation {when}  ", "bold"), _results(results)))

    def finish(self, lines: Sequence[str]) -> None:
        self.stage = "done"
        self.live.stop()
        for i, line in enumerate(lines):
            self.console.print(Text(visible(line), style="" if i else "bold green"))

    def draw(self) -> RenderableType:
        if not self.steps:
            waited = f" · {_clock(time.monotonic() - self.started)}"
            return Text(f"{self.stage}{waited}" if self.stage else "", style="dim")
        width = min(self.console.width, WIDEST) - 6
        parts = [self._progress(width)]
        if self.rewards:
            parts += [Text(), _curve(self.rewards, width, self._reward()), Text(), self._numbers(width)]
        if self.timing:
            parts += [Text(), *_time_bar(self.timing, width)]
        if self.shown_sample:
            parts += [Text(), _sample(*self.shown_sample, width)]
        return _framed(Group(*parts), visible(self.title), self.console.width)

    def _reward(self) -> str:
        """What a step's reward is: in control the mean return of the episodes that ended in it."""
        return "return" if self.accuracy and "return" in self.accuracy[0][1] else "reward"

    def _progress(self, width: int) -> RenderableType:
        facts = [_clock(time.monotonic() - self.started)]
        if len(self.ended) > 1:
            each = median(b - a for a, b in pairwise(self.ended[-11:]))
            left = max(0.0, each * (self.steps - self.at) - (time.monotonic() - self.ended[-1]))
            facts += [f"{_clock(left)} left"] if self.at < self.steps else []
            facts += [f"{each:.2g} s/step"]
        if self.at == self.steps and self.stage != "done":
            facts.insert(1, "held-out evaluation")
        row = Table.grid(padding=(0, 2), expand=False)
        done, about = Text(f"step {self.at}/{self.steps}", style="bold"), Text(" · ".join(facts), style="dim")
        room = max(8, width - done.cell_len - about.cell_len - 4)
        bar = ProgressBar(total=self.steps, completed=self.at, width=room)
        row.add_row(done, bar, about)
        return row

    def _numbers(self, width: int) -> RenderableType:
        """Label and value pairs, as many columns as fit."""
        pairs = [(HEADLINE[n], Text(_metric(n, v), style="bold red" if n in TROUBLE else "bold"))
                 for n, v in headline(self.metrics).items() if n != "reward"]
        measure = measure_of(self.accuracy[0][1]) if self.accuracy else ""
        known = [(when, r[measure]) for when, r in self.accuracy if measure in r]
        if known:
            (_, first), (when, last) = known[0], known[-1]
            first, last = _score(measure, first), _score(measure, last)
            change = f"{first} → {last}" if len(known) > 1 else last
            pairs.insert(0, (measure.replace("_", " "), Text(change, style="bold") + Text(f" {when}", style="dim")))
        columns = 3 if width >= 96 else 2
        table = Table.grid(padding=(0, 2))
        for _ in range(columns):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(no_wrap=True, min_width=10)
        for i in range(0, len(pairs), columns):
            table.add_row(*(cell for pair in pairs[i:i + columns] for cell in pair))
        return table


def _framed(content: RenderableType, title: str, width: int) -> Panel:
    return Panel(content, title=Text(title, style="bold"), title_align="left", box=box.ROUNDED,
                 border_style="dim", padding=(0, 2), width=min(width, WIDEST))


def _curve(rewards: Sequence[float], width: int, name: str) -> RenderableType:
    """The reward over the last steps, drawn in blocks, with its range; NaN where a step has none."""
    room = width - 30
    seen = list(rewards)[-room:]
    known = [r for r in rewards if math.isfinite(r)]
    if not known:
        return Text(f"{name}: none yet", style="dim")
    finite = [r for r in seen if math.isfinite(r)] or known[-1:]
    low, high = min(finite), max(finite)
    table = Table.grid(padding=(0, 2))
    table.add_column(width=16)
    table.add_column(width=len(seen))
    table.add_column(style="dim")
    now = Text(f"{name} {number(finite[-1])}", style="bold")
    since = Text(f"from {number(known[0])}", style="dim")
    lines = curve_rows(seen, low, high)
    edges = (number(high), "", number(low) if low < high else "")
    for label, line, edge in zip((now, since, Text()), lines, edges, strict=True):
        table.add_row(label, Text(line, style="green"), edge)
    return table


def curve_rows(values: Sequence[float], low: float, high: float) -> list[str]:
    """CURVE_ROWS lines of block characters, top first; a value at `low` still shows one eighth, NaN a gap."""
    span = (high - low) or 1.0
    top = CURVE_ROWS * 8
    levels = [1 + round((v - low) / span * (top - 1)) if math.isfinite(v) else 0 for v in values]
    return ["".join(BLOCKS[min(8, max(0, level - 8 * row))] for level in levels)
            for row in reversed(range(CURVE_ROWS))]


def _metric(name: str, value: float) -> str:
    return f"{value:.0%}" if name in SHARES else number(float(value))


def _score(measure: str, value: float) -> str:
    """A share in percent, anything else as a number."""
    return f"{value:.1%}" if measure in PROPORTIONS else number(float(value))


def _results(results: Mapping[str, Any]) -> str:
    """`accuracy 31.0% [25, 38] · other skills 40.0% [30, 50] · kl task 0.01`; intervals of shares in percent too."""
    parts = []
    for name, bounds in (*((measure, "interval") for measure in MEASURES), ("other_skills", "other_interval")):
        if name in results:
            low, high = (f"{100 * x:.0f}" if name in PROPORTIONS else number(float(x)) for x in results[bounds])
            parts.append(f"{name.replace('_', ' ')} {_score(name, results[name])} [{low}, {high}]")
    parts += [f"{name.replace('_', ' ')} {number(results[name])}" for name in ("kl_task", "kl_other")
              if name in results]
    parts += [f"verifier failures {results['failures']}"] if results.get("failures") else []
    return " · ".join(parts)


def _time_bar(timing: Mapping[str, float], width: int) -> list[RenderableType]:
    """Where the last step's seconds went: one bar in proportion, and its legend."""
    total = sum(timing.values()) or 1.0
    bar, legend, drawn, passed = Text(), Text(no_wrap=True, overflow="ellipsis"), 0, 0.0
    for i, (stage, seconds) in enumerate(timing.items()):
        style = STAGE_STYLES[i % len(STAGE_STYLES)]
        passed += seconds
        cells = round(passed / total * width) - drawn
        bar.append("━" * cells, style)
        drawn += cells
        legend.append("■ ", style).append(f"{stage} ").append(f"{seconds / total:.0%}", "bold")
        legend.append(f" {seconds:.2g} s   ", "dim")
    return [bar, legend]


def _sample(prompt: str, completion: str, reward: float, width: int) -> RenderableType:
    """The last sampled completion; long text keeps its beginning and its end."""
    room = width - 12
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, width=10)
    table.add_column(overflow="fold", width=room)
    table.add_row("prompt", Text(shortened(prompt, room)))
    table.add_row("completion", Text(shortened(completion, 2 * room)))
    table.add_row("its reward", Text(number(float(reward)), style="bold green" if reward > 0 else "bold red"))
    return table


def shortened(text: str, cells: int) -> str:
    """At most `cells` wide, escaped; what is cut is cut from the middle."""
    shown = visible(text.strip())
    if cell_len(shown) <= cells:
        return shown
    half = (cells - 3) // 2
    head, tail = shown[:half], shown[-half:]
    while cell_len(head) > half:
        head = head[:-1]
    while cell_len(tail) > half:
        tail = tail[1:]
    return f"{head} … {tail}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
