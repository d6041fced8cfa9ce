"""From what both sides reported of each step to medians, ratios, a table and one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import median
from typing import Any

from posttrain.core.errors import PosttrainError
from versus import quiet
from versus.floor import Least

LEAST = ("rollout", "loss and gradient", "optimizer")  # that have a floor
STAGES = (*LEAST, "weights to engine", "rest")
GIB = 2**30


@dataclass(frozen=True)
class Pair:
    """The same step of both sides, as each reported it; `others` is the load beside it, cores."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)  # as `versus.machine` found it just before, if it was asked

    @property
    def disturbed(self) -> bool:
        return bool(max(self.ours["others"], self.theirs["others"]) > quiet.LIMIT)

    @property
    def ratio(self) -> float:
        """How many times longer the other took; on the same step, so that both saw the same machine."""
        return float(self.theirs["seconds"] / self.ours["seconds"])


def check_same_prompts(pair: Pair) -> None:
    """
    Raises:
        PosttrainError: the two steps did not have the same prompts.
    """
    if pair.ours["prompts"] != pair.theirs["prompts"]:
        raise PosttrainError("the two sides saw different prompts; the comparison is void")


def check_all_learnt(pair: Pair) -> None:
    """
    Raises:
        PosttrainError: one side left completions out of its update, though every group's rewards differ.
    """
    if pair.ours["skipped"] or pair.theirs["skipped"]:
        raise PosttrainError("one side left completions out of its update; the comparison is void")


def chosen(pairs: Sequence[Pair], anyway: bool) -> list[Pair]:
    """The pairs that count: without warm-up, and without those that others disturbed unless `anyway`.

    Raises:
        Disturbed: none is left.
    """
    measured = list(pairs[1:])
    kept = measured if anyway else [pair for pair in measured if not pair.disturbed]
    if not kept:
        raise quiet.Disturbed(f"others used more than {quiet.LIMIT:.0%} of a core in every step: nothing to "
                              "report (--anyway reports with a warning)")
    return kept


def summarise(steps: Sequence[dict[str, Any]], least: Sequence[Mapping[str, Least]]) -> dict[str, float]:
    """One side's medians over steps as reported; `least`: the time that each stage of each of them needs."""
    def middle(values: Sequence[float]) -> float:
        return float(median(values))

    floors = {stage: [told[stage](s["prompts"], s["lengths"]) for told, s in zip(least, steps, strict=True)]
              for stage in least[0]}
    whole = [sum(one) for one in zip(*floors.values(), strict=True)]
    row = {"seconds": middle([s["seconds"] for s in steps]), "fastest": min(s["seconds"] for s in steps),
           "slowest": max(s["seconds"] for s in steps)}
    row |= {stage: middle([s["stages"].get(stage, 0.0) for s in steps]) for stage in STAGES}
    return row | {
        "peak_gib": max(s["peak_bytes"] for s in steps) / GIB,
        "tokens": middle([sum(s["lengths"]) for s in steps]),
        "length": sum(sum(s["lengths"]) for s in steps) / sum(len(s["lengths"]) for s in steps),
        "ms_per_token": middle([1000 * s["seconds"] / sum(s["lengths"]) for s in steps]),
        "grad_norm": middle([s["grad_norm"] for s in steps]),
        "reward": middle([s.get("reward", nan) for s in steps]), "skipped": middle([s["skipped"] for s in steps]),
        "floor": middle(whole), "share": middle(shares(whole, [s["seconds"] for s in steps])),
        **{f"floor, {stage}": middle(each) for stage, each in floors.items()},
        **{f"share, {stage}": middle(shares(each, [s["stages"].get(stage, nan) for s in steps]))
           for stage, each in floors.items()},
    }


def shares(floors: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Of the floor reached: NaN where a stage was not timed."""
    return [floor / taken for floor, taken in zip(floors, seconds, strict=True)]


def compare(pairs: Sequence[Pair], least: Sequence[Mapping[str, Least]]) -> dict[str, Any]:
    """Both sides' medians, and how they relate; least: of each pair, the time that each stage needs on the machine."""
    ours, theirs = ([getattr(pair, side) for pair in pairs] for side in ("ours", "theirs"))
    a, b = summarise(ours, least), summarise(theirs, least)
    return {"posttrain": a, "TRL": b, "ratio_of_medians": b["seconds"] / a["seconds"],
            "ratios": [pair.ratio for pair in pairs], "memory_ratio": a["peak_gib"] / b["peak_gib"],
            "pairs": len(pairs), "disturbed": sum(pair.disturbed for pair in pairs)}


ROWS = (  # label, key, format
    ("seconds per step", "seconds", "{:.2f}"),
    ("  fastest", "fastest", "{:.2f}"), ("  slowest", "slowest", "{:.2f}"),
    *((f"  {stage}", stage, "{:.2f}") for stage in STAGES),
    ("first step (warm-up)", "first", "{:.2f}"), ("peak memory, GiB", "peak_gib", "{:.2f}"),
    ("completion tokens per step", "tokens", "{:.0f}"), ("mean completion, tokens", "length", "{:.1f}"),
    ("ms per completion token", "ms_per_token", "{:.2f}"), ("gradient norm", "grad_norm", "{:.3g}"),
    ("mean reward", "reward", "{:.3f}"), ("left out of the update", "skipped", "{:.1%}"),
    ("floor, seconds", "floor", "{:.2f}"),
    *((f"  {stage}", f"floor, {stage}", "{:.2f}") for stage in LEAST),
    ("share of the floor reached", "share", "{:.1%}"),
    *((f"  {stage}", f"share, {stage}", "{:.1%}") for stage in LEAST),
)


def table(result: dict[str, Any]) -> list[str]:
    """Medians side by side."""
    lines = [f"{'':<28}{'posttrain':>12}{'TRL':>12}"]
    for label, key, form in ROWS:
        cells = (shown(result[side][key], form) for side in ("posttrain", "TRL"))
        lines.append(f"{label:<28}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def shown(value: float, form: str) -> str:
    """The number, or a dash where there is none."""
    return "–" if isnan(value) else form.format(value)


def together(pairs: Sequence[Pair]) -> str:
    """All steps as one run, the first among them: its seconds, and whether both sides learnt."""
    sides = [[getattr(pair, side) for pair in pairs] for side in ("ours", "theirs")]
    a, b = (sum(step["seconds"] for step in side) for side in sides)
    part = max(1, len(pairs) // 4)

    def reward(few: slice) -> str:
        return " and ".join(f"{sum(step['reward'] for step in side[few]) / part:.2f}" for side in sides)

    return (f"all {len(pairs)} steps: posttrain {a:,.0f} s, TRL {b:,.0f} s, {b / a:.1f} times; mean reward of the "
            f"first {part} {reward(slice(part))}, of the last {part} {reward(slice(-part, None))}")


def step_lines(pairs: Sequence[Pair]) -> list[str]:
    """One line a step, the warm-up included."""
    lines = [f"{'step':<12}{'posttrain s':>12}{'TRL s':>10}{'ratio':>8}{'others, cores':>15}"]
    for i, pair in enumerate(pairs):
        name = f"{i}" if i else "0 (warm-up)"
        load = max(pair.ours["others"], pair.theirs["others"])
        lines.append(f"{name:<12}{pair.ours['seconds']:>12.2f}{pair.theirs['seconds']:>10.2f}{pair.ratio:>8.2f}"
                     f"{load:>15.2f}" + ("  disturbed" if pair.disturbed else ""))
    return lines


def where(machine: Mapping[str, Any], *others: str) -> str:
    """The machine of one side and the versions of what ran on it; `others`: names in `machine` beside torch."""
    cores = f"{machine['threads']} core{'s' * (machine['threads'] > 1)}"
    told = ", ".join(f"{name} {machine[name]}" for name in ("torch", *others) if name in machine)
    return f"{cores}, {machine['instructions']}, {machine['precision']}, {told}"


def final_line(result: dict[str, Any], machine: dict[str, Any], of: str = "step") -> str:
    """The whole result in one line; `of`: what the seconds are of."""
    a, b, ratio = result["posttrain"], result["TRL"], result["ratio_of_medians"]
    speed = f"{ratio:.1f}× faster" if ratio >= 1 else f"{1 / ratio:.1f}× slower"
    return (f"posttrain {a['seconds']:.3g} s/{of}, {a['peak_gib']:.1f} GiB; TRL {b['seconds']:.3g} s/{of}, "
            f"{b['peak_gib']:.1f} GiB: {speed}, {result['memory_ratio']:.2f}× memory ({where(machine, 'trl')})")
