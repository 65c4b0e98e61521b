"""
From samples to rows: medians, spread, and the ratio of paired measurements.

Not here: the measuring.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

_SIGNIFICANT = 4


class Row(TypedDict):
    """A comparison, as `build/bench.json` stores it."""

    name: str
    unit: str
    ours: float
    other: float
    other_name: str
    ratio: float


def rounded(value: float) -> float:
    """Return a figure with its significant digits."""
    return float(f"{value:.{_SIGNIFICANT}g}")


def compare(name: str, unit: str, ours: Sequence[float], other: Sequence[float], other_name: str) -> Row:
    """Return the medians of both, and the median of the ratios round by round: drift of the machine hits both alike."""
    return Row(
        name=name,
        unit=unit,
        ours=rounded(statistics.median(ours)),
        other=rounded(statistics.median(other)),
        other_name=other_name,
        ratio=rounded(statistics.median(a / b for a, b in zip(ours, other, strict=True))),
    )


def median_of_rounds(rounds: Sequence[Sequence[float]], statistic: Callable[[Sequence[float]], float]) -> float:
    """Return the median of the values of all rounds, as a row of a comparison shows it."""
    return statistics.median(statistic(samples) for samples in rounds)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which the given share of all lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def percentile_99(samples: Sequence[float]) -> float:
    """Return the sample that one in a hundred exceeds."""
    return percentile(samples, 0.99)


@dataclass
class Findings:
    """The rows, and the samples behind them for plots and spread."""

    rows: list[Row] = field(default_factory=list)
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Messages per second by setting and side, round by round."""
    laps: dict[str, list[list[float]]] = field(default_factory=dict)
    """Milliseconds of each call, round by round."""
    spreads: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Least and most of `ours` and `other`, by `key_of` their row, for the rows that show them."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Other values of the detail file."""

    def add(
        self,
        name: str,
        unit: str,
        ours: Sequence[float],
        other: Sequence[float],
        other_name: str,
        *,
        shows_spread: bool = False,
    ) -> None:
        """Add a comparison; with `shows_spread` the page shows least and most in addition to the medians."""
        row = compare(name, unit, ours, other, other_name)
        self.rows.append(row)
        if shows_spread:
            sides = {"ours": ours, "other": other}
            self.spreads[key_of(row)] = {
                side: [rounded(min(samples)), rounded(max(samples))] for side, samples in sides.items()
            }
        self.notes[key_of(row)] = {
            "ours": spread(ours),
            "other": spread(other),
            "ratio": spread([a / b for a, b in zip(ours, other, strict=True)]),
        }


def key_of(row: Row) -> str:
    """Return the key of a row: the measurement, and the one it is compared with."""
    return f"{row['name']} | {row['other_name']}"


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and number of samples."""
    return {
        "median": rounded(statistics.median(samples)),
        "least": rounded(min(samples)),
        "most": rounded(max(samples)),
        "samples": len(samples),
    }
