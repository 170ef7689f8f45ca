"""Timing of one piece of work against its peers, in one process and turn by turn."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table: who did the work, how long it took, how well.

    ``read_bytes`` is what had to be read, for the rate.
    """

    who: str
    seconds: float
    read_bytes: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Table:
    """A piece of work; the first row is gnomon's, to which the others are compared."""

    work: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Candidate:
    """Who can do a piece of work, how, and how its answer is judged.

    ``turns`` is how often it is timed.
    """

    who: str
    run: Callable[[], Any]
    judge: Callable[[Any], str] = lambda _: ""
    turns: int = 3


def compare(work: str, candidates: list[Candidate], *, read_bytes: float | None = None) -> Table:
    """Best time of each; all take turns, so that a busy moment of the machine hits all alike.

    The first run of each, which may compile or page in, is not counted, except where there is only one turn.
    """
    best = [float("inf")] * len(candidates)
    errors = [""] * len(candidates)
    for number, candidate in enumerate(candidates):
        start = time.perf_counter()
        answer = candidate.run()
        if candidate.turns == 1:
            best[number] = time.perf_counter() - start
        errors[number] = candidate.judge(answer)
        del answer
    for turn in range(max(candidate.turns for candidate in candidates)):
        for number, candidate in enumerate(candidates):
            if candidate.turns == 1 or turn >= candidate.turns:
                continue
            gc.collect()
            start = time.perf_counter()
            candidate.run()
            best[number] = min(best[number], time.perf_counter() - start)
    rows = tuple(
        Row(candidate.who, seconds, read_bytes, error)
        for candidate, seconds, error in zip(candidates, best, errors, strict=True)
    )
    return Table(work, rows)


def markdown(tables: list[Table]) -> str:
    """One table of all the work."""
    lines = ["| work | by | time | rate | × gnomon | error |", "|---|---|---|---|---|---|"]
    for table in tables:
        ours = table.rows[0].seconds
        for number, row in enumerate(table.rows):
            rate = "" if row.read_bytes is None else f"{row.read_bytes / row.seconds / 1e9:.2g} GB/s"
            ratio = "" if number == 0 else f"{row.seconds / ours:.2g}"
            work = table.work if number == 0 else ""
            lines.append(f"| {work} | {row.who} | {_time(row.seconds)} | {rate} | {ratio} | {row.error} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
