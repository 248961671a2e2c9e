"""The numbers of the store's bench, as a table and beside what they are to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.store_cases import AMONG_REWINDS, AT_ONCE, Case, Sizes

__all__ = ["Target", "numbers_of", "show", "targets_of"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to reach, and what was measured."""

    name: str
    bound: float
    measured: float | None
    """None if it was not: without google-adk, or without samples."""
    at_least: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """Whether it was met."""
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return "met" if met else "NOT MET"

    @property
    def measured_text(self) -> str:
        """What was measured, for a reader."""
        return "-" if self.measured is None else f"{self.measured:.3g}{self.unit}"


def numbers_of(case: Case) -> dict[str, Any]:
    """The numbers of one case, as they are written to JSON; all times in milliseconds."""
    told: dict[str, Any] = {"samples_ms": case.ms}
    for who, samples in case.ms.items():
        if samples:
            told[who] = {
                f"p{percent}_ms": round(_percentile(samples, percent), 4) for percent in (10, 50, 95)
            }
    told["floor_ratio"] = _ratio(_p50(case, "ours"), _p50(case, "floor"))
    told["adk_ratio"] = _ratio(_p50(case, "adk"), _p50(case, "ours"))
    if case.problem:
        told["adk_problem"] = case.problem
    return told


def targets_of(database: str, cases: Sequence[Case], sizes: Sizes, percent: int = 50) -> list[Target]:
    """What is to be reached, measured on one database.

    Args:
        database: its kind.
        cases: with their samples.
        sizes: what they were of.
        percent: which sample stands for a case: the median, or 10 for one that little disturbed.
    """

    def at(case: Case, who: str) -> float | None:
        return _percentile(case.ms[who], percent) if case.ms[who] else None

    found = {case.name: case for case in cases}
    appends = [case for case in cases if case.name.startswith("append ")]
    first, much = appends[0], [case for case in appends if case.name.endswith((" keys", " 1 key"))]
    longest = found[f"append at {sizes.lengths[-1]} events, 1 KB state"]
    rewind = found[f"rewind of {sizes.depths[-1]} events"]
    short, long = (found[f"last 50 of {length}"] for length in (50, sizes.long))
    bare = found["append, its floor handed over at once"]
    ours = at(first, "ours")
    targets = [
        Target(name="append, through the floor", bound=2, measured=_ratio(ours, at(first, "floor"))),
        Target(
            name="append, through the floor handed over at once",
            bound=2,
            measured=_ratio(at(bare, "ours"), at(bare, "floor")),
        ),
        Target(
            name=f"append at {sizes.lengths[-1]} events, through one at {sizes.lengths[0]}",
            bound=1.3,
            measured=_ratio(at(longest, "ours"), ours),
        ),
        *(
            Target(
                name=f"{case.name}, through one with 1 KB",
                bound=1.3,
                measured=_ratio(at(case, "ours"), ours),
            )
            for case in much
        ),
        Target(
            name=f"{rewind.name}, through an append",
            bound=10,
            measured=_ratio(at(rewind, "ours"), at(found[AMONG_REWINDS], "ours")),
        ),
        Target(
            name=f"{rewind.name}: google-adk's, through ours",
            bound=50,
            measured=_ratio(at(rewind, "adk"), at(rewind, "ours")),
            at_least=True,
        ),
        Target(
            name=f"{long.name}, through {short.name}",
            bound=1.5,
            measured=_ratio(at(long, "ours"), at(short, "ours")),
        ),
        Target(
            name=f"list 50 of {sizes.sessions}",
            bound=5,
            measured=at(found[f"list 50 of {sizes.sessions}"], "ours"),
            unit=" ms",
        ),
    ]
    if database == "postgres":
        measured = _ratio(at(first, "adk"), ours)
        targets.append(
            Target(name="append: google-adk's, through ours", bound=5, measured=measured, at_least=True)
        )
    return targets


def show(results: Mapping[str, Sequence[Case]], sizes: Sizes) -> None:
    """Print the tables."""
    console = Console(width=130)
    for database, cases in results.items():
        table = Table(title=f"{database}: milliseconds, medians but for p95")
        table.add_column("")
        for head in ("ours", "p95", "floor", "x floor", "google-adk", "google-adk / ours", "ours a second"):
            table.add_column(head, justify="right")
        for case in cases:
            table.add_row(case.name, *_cells(case))
        console.print(table)
    table = Table(title="targets; the best tenth is what a machine with other work disturbs least")
    for head in ("database", "target", "bound", "measured", "", "best tenth", ""):
        table.add_column(head, justify="right" if head in ("bound", "measured", "best tenth") else "left")
    for database, cases in results.items():
        best = targets_of(database, cases, sizes, 10)
        for target, other in zip(targets_of(database, cases, sizes), best, strict=True):
            sign = ">=" if target.at_least else "<="
            reached = [target.measured_text, target.verdict, other.measured_text, other.verdict]
            table.add_row(database, target.name, f"{sign} {target.bound:g}{target.unit}", *reached)
    console.print(table)


def _cells(case: Case) -> list[str]:
    ours, floor, adk = (_p50(case, who) for who in ("ours", "floor", "adk"))
    assert ours is not None, "every case has samples of ours"
    return [
        _number(ours),
        _number(_percentile(case.ms["ours"], 95)),
        _number(floor),
        _number(_ratio(ours, floor)),
        f"{_number(adk)}, then {case.problem[:22]}…" if case.problem else _number(adk),
        _number(_ratio(adk, ours)),
        f"{1000 / ours:.0f}" if f"{AT_ONCE} sessions" in case.name else "",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _p50(case: Case, who: str) -> float | None:
    return median(case.ms[who]) if case.ms[who] else None


def _percentile(samples: Sequence[float], percent: int) -> float:
    if percent == 50:
        return median(samples)
    return sorted(samples)[min(len(samples) - 1, len(samples) * percent // 100)]


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one / other, 2)
