"""
The plots of rate and of latency, drawn in the peers' environment, which has the plotting library.

    .venv-peers/bin/python -m benchmarks.plots build/bench-detail.json build

Not here: any figure that is not in the file.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.figures import median_of_rounds, percentile_99

_OURS, _PEERS, _DISK = "#1f6f8b", "#b9bec4", "#d9a441"
_WIDTH = 9.5
_OWN = ("draining", "bulk publishing", "publish()")


def colour_of(label: str) -> str:
    """Return the colour of a side."""
    if label.startswith(_OWN):
        return _OURS
    return _DISK if "SQLite" in label else _PEERS


def _axes(title: str, bars: int) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.1 + 0.36 * bars), layout="constrained")
    # The size is that of the whole figure, because long labels leave little room for the axes.
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#e4e7ea", linewidth=0.8)
    return figure, axes


def draw_rates(rates: dict[str, list[float]], target: Path) -> None:
    """Draw the median of each side as a bar, with its least and most."""
    labels = sorted(rates, key=lambda label: median(rates[label]))
    middles = [median(rates[label]) for label in labels]
    below = [middle - min(rates[label]) for label, middle in zip(labels, middles, strict=True)]
    above = [max(rates[label]) - middle for label, middle in zip(labels, middles, strict=True)]
    figure, axes = _axes("Messages per second, 1 KiB to the archive stream: median, least and most", len(labels))
    axes.barh(
        labels,
        middles,
        xerr=[below, above],
        color=[colour_of(label) for label in labels],
        height=0.66,
        error_kw={"ecolor": "#444", "elinewidth": 1, "capsize": 2.5},
    )
    most = max(max(samples) for samples in rates.values())
    for place, label in enumerate(labels):
        axes.text(max(rates[label]) + 0.015 * most, place, f"{middles[place]:,.0f}", va="center", fontsize=9)
    axes.set_xlim(0, 1.13 * most)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    figure.savefig(target, dpi=110)
    plt.close(figure)


def draw_latency(laps: dict[str, list[list[float]]], target: Path) -> None:
    """Draw the median of each side as a dot, with a line to its 99th percentile: the figures of the table."""
    spans = {
        label: (median_of_rounds(rounds, median), median_of_rounds(rounds, percentile_99))
        for label, rounds in laps.items()
    }
    labels = sorted(spans, key=lambda label: -spans[label][0])
    figure, axes = _axes("Milliseconds per call: median (dot) to 99th percentile (line)", len(labels))
    for place, label in enumerate(labels):
        middle, high = spans[label]
        axes.plot([middle, high], [place, place], color=colour_of(label), linewidth=4, solid_capstyle="butt")
        axes.plot([middle], [place], "o", color=colour_of(label), markersize=8)
        axes.text(high * 1.12, place, f"{middle:.2g} to {high:.2g}", va="center", fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.set_xscale("log")
    low, high = min(span[0] for span in spans.values()), max(span[1] for span in spans.values())
    axes.set_xlim(low / 1.5, high * 3.2)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    figure.savefig(target, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw the figures of the file."""
    detail = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    if "rates" in detail:
        draw_rates(detail["rates"]["rates"]["1 KiB to the archive stream"], folder / "bench-rate.png")
    if "publish" in detail:
        draw_latency(detail["publish"]["laps"], folder / "bench-latency.png")


if __name__ == "__main__":
    main()
