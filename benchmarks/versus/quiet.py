"""Is anything else using this machine?  Other load slows threaded products by more than its own share."""

from __future__ import annotations

import time
from typing import NamedTuple

from posttrain.core.errors import PosttrainError

LIMIT = 0.10  # of one core, used by others
WATCH_SECONDS = 2.0


class Disturbed(PosttrainError):
    """Others were at work whenever this was measured."""


class Usage(NamedTuple):
    """Processor time since some fixed moment, seconds."""

    wall: float
    busy: float  # of all cores, whoever used them
    own: float  # of this process and those that it started


def usage() -> Usage:
    """The present count."""
    return Usage(time.monotonic(), busy_seconds(), own_seconds())


def busy_seconds() -> float:
    """Core seconds that were not idle, time taken by other guests of the host (steal) included."""
    import psutil

    t = psutil.cpu_times()
    counted_twice = getattr(t, "guest", 0.0) + getattr(t, "guest_nice", 0.0)  # on Linux in user and nice too
    return float(sum(t) - counted_twice - t.idle - getattr(t, "iowait", 0.0))


def own_seconds() -> float:
    """Core seconds of this process, its living descendants and its children that have ended."""
    import psutil

    me = psutil.Process()
    ended = me.cpu_times()
    total = float(ended.children_user + ended.children_system)
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def others(before: Usage, after: Usage) -> float:
    """Cores that other processes used on average between two counts, ≥ 0."""
    used = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, used / (after.wall - before.wall))


def watch(seconds: float = WATCH_SECONDS) -> float:
    """Cores that other processes use, averaged over the next seconds."""
    before = usage()
    time.sleep(seconds)
    return others(before, usage())
