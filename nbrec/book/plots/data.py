"""Figures of the data: lengths, popularity, the funnel of the preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nbrec.book.plots.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    VERMILION,
    WIDTH,
    metric_label,
    model_style,
    thousands,
)
from nbrec.sequences import FunnelStep


def popularity_top(original, truncated, n: int = 100) -> Figure:
    """The n most popular items of two variants of the sequences (thesis Figure 2.1).

    Args:
        original, truncated: Sequences; each is ranked by its own counts.
        n: how many items.
    """
    fig, ax = plt.subplots()
    styles = [("original", original, BLUE, "-"), ("truncated", truncated, VERMILION, "--")]
    highest = 0.0
    for label, sequences, colour, line in styles:
        share = 100 * np.bincount(sequences.items, minlength=1) / len(sequences.items)
        top = np.sort(share)[::-1][:n]
        text = f"{label}: together {top.sum():.0f}% of all interactions"
        ax.plot(np.arange(1, len(top) + 1), top, line, color=colour, label=text)
        highest = max(highest, top[0])
    ax.set(xlabel="place of the film by popularity", ylabel="share of all interactions (%)")
    ax.set_xlim(0, n + 1)
    ax.set_ylim(0, 1.06 * highest)
    ax.legend(loc="upper right")
    return fig


def length_histogram(lengths: np.ndarray, keep: tuple[int, int] | None = None, log: bool = False
                     ) -> Figure:
    """How many items the users have (thesis Figures 2.2 and 2.3).

    Args:
        lengths: int (U,), items of each user.
        keep: shade this range, ends included, and write the share of users in and outside of it.
        log: logarithmic axis, for lengths over several powers of ten; on a linear one each bar
            covers the same whole number of lengths.
    """
    lengths, bins = np.asarray(lengths), 43
    fig, ax = plt.subplots()
    if log:
        edges = np.unique(np.geomspace(max(1, lengths.min()), lengths.max() + 1, bins + 1).round())
    else:
        step = max(1, math.ceil((lengths.max() - lengths.min() + 1) / bins))
        edges = np.arange(lengths.min(), lengths.max() + step + 1, step)
    edges = edges - 0.5
    counts, _ = np.histogram(lengths, edges)
    inside = np.ones(len(counts), bool)
    if keep:
        middle = (edges[:-1] + edges[1:]) / 2
        inside = (middle >= keep[0]) & (middle <= keep[1])
    colours = np.where(inside, BLUE, "#b8c0c8")
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor=PAPER,
           linewidth=0.5)
    ax.set(xlabel="films per user", ylabel="users")
    ax.set_xlim(edges[0], edges[-1])
    thousands(ax.yaxis)
    if log:
        ax.set_xscale("log")
        ticks = [d * 10**e for e in range(7) for d in (1, 2, 5)]
        ax.set_xticks([t for t in ticks if edges[0] <= t <= edges[-1]])
        ax.minorticks_off()
        thousands(ax.xaxis)
    ax.grid(axis="x", visible=False)
    if keep:
        below, above = np.mean(lengths < keep[0]), np.mean(lengths > keep[1])
        for edge in (keep[0] - 0.5, keep[1] + 0.5):
            if edges[0] < edge < edges[-1]:
                ax.axvline(edge, color=INK, linewidth=1, linestyle=":")
        text = (f"kept, {keep[0]} to {keep[1]}: {1 - below - above:.1%}\n"
                f"shorter: {below:.1%}\nlonger: {above:.1%}")
    else:
        text = (f"{len(lengths):,} users\nmedian {np.median(lengths):g}, "
                f"mean {lengths.mean():.1f}")
    ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", linespacing=1.5)
    return fig


def funnel_chart(funnel: Sequence[FunnelStep]) -> Figure:
    """What every preprocessing step leaves of users, films and interactions.

    Args:
        funnel: as `Sequences.funnel`.
    """
    parts = [("users", "users", BLUE), ("movies", "films", "#009E73"),
             ("ratings", "interactions", "#E69F00")]
    fig, axes = plt.subplots(1, 3, sharey=True, figsize=(WIDTH, 0.42 * len(funnel) + 0.7))
    places = np.arange(len(funnel))
    for ax, (name, title, colour) in zip(axes, parts, strict=True):
        values = np.array([getattr(step, name) for step in funnel])
        ax.barh(places, values, color=colour, height=0.66)
        for place, value in zip(places, values, strict=True):
            share = value / values.max()
            inside = share > 0.62  # else the number stands to the right of its bar
            ax.text(value - 0.02 * values.max() if inside else value + 0.02 * values.max(), place,
                    f"{value:,}", ha="right" if inside else "left", va="center", fontsize=8.5,
                    color=(PAPER if name != "ratings" else INK) if inside else INK)
        ax.set_title(title)
        ax.set_xlim(0, 1.02 * values.max())
        ax.set_xticks([])
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(places, [f"{s.step}. {s.what}" if s.step else s.what for s in funnel])
    axes[0].invert_yaxis()
    return fig


def lorenz_curves(counts: Mapping[str, np.ndarray]) -> Figure:
    """Lorenz curves (Lorenz 1905): how unevenly interactions are spread over films, with Gini.

    Films stand from the least to the most popular. The Gini coefficient is twice the area between
    the curve and the diagonal: 0 if all films have equally many, (V - 1) / V if one has them all.

    Args:
        counts: label -> int (V,), interactions of each film; one curve each, up to four.
    """
    fig, ax = plt.subplots(figsize=(5.2, 4.2))
    for (label, values), style in zip(counts.items(), ("-", "--", "-.", ":"), strict=False):
        values = np.sort(np.asarray(values))
        n = len(values)
        gini = (2 * np.arange(1, n + 1) - n - 1) @ values / (n * values.sum())
        ax.plot(np.linspace(0, 1, n + 1), np.r_[0, values.cumsum() / values.sum()], style,
                label=f"{label}, Gini {gini:.2f}")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, label="equality")
    ax.set(xlabel="share of the films, least popular first", ylabel="share of the interactions")
    ax.legend()
    return fig


def by_position(draws: Mapping[str, np.ndarray], cut: int | None = None) -> Figure:
    """Measures of the items at each place of the sequence, one panel each (Fan et al. 2024).

    Args:
        draws: label of the axis -> float (R, T), the measure at T places in R random draws of the
            users; the line is their mean, the band their 2.5% to 97.5% quantiles.
        cut: a dotted line after this many places.
    """
    columns = 2
    rows = math.ceil(len(draws) / columns)
    fig, axes = plt.subplots(rows, columns, sharex=True, squeeze=False,
                             figsize=(WIDTH, 2.1 * rows + 0.3))
    for ax in axes.flat[len(draws):]:
        ax.set_visible(False)
    for panel, (label, values) in enumerate(draws.items()):
        ax, places = axes.flat[panel], np.arange(1, values.shape[1] + 1)
        low, high = np.quantile(values, [0.025, 0.975], axis=0)
        ax.fill_between(places, low, high, color=BLUE, alpha=0.25, linewidth=0)
        ax.plot(places, values.mean(axis=0), color=BLUE)
        if cut:
            ax.axvline(cut + 0.5, color=MUTED, linewidth=1, linestyle=":")
        ax.set_ylabel(label)
        if panel + columns >= len(draws):
            ax.set_xlabel("place in the sequence")
            ax.tick_params(labelbottom=True)
    return fig


def sample_sweep(
    ours: pd.DataFrame, thesis: pd.DataFrame, metrics: Sequence[str] = ("hr@20", "hr@300"),
    model: str = "item-knn", thesis_model: str = "transformer",
) -> Figure:
    """Accuracy against the share of the training users (thesis Table 2.1), one panel per metric.

    Args:
        ours: columns share (0..1), metric, mean, low, high; bars run from low to high.
        thesis: column share and one of each metric; hollow markers, no interval is printed.
        metrics: the panels.
        model, thesis_model: whose look the two lines have.
    """
    fig, axes = plt.subplots(1, len(metrics), squeeze=False, figsize=(WIDTH, 3))
    looks = [model_style(name) for name in (model, thesis_model)]
    for ax, metric in zip(axes[0], metrics, strict=True):
        rows = ours[ours["metric"] == metric].sort_values("share")
        label, colour, marker = looks[0]
        ends = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        ax.errorbar(rows["share"], rows["mean"], ends, color=colour, marker=marker, capsize=3,
                    elinewidth=1.2, label=f"this run: {label}")
        label, colour, marker = looks[1]
        ax.plot(thesis["share"], thesis[metric], "--", color=colour, marker=marker, linewidth=1.2,
                markerfacecolor=PAPER, label=f"thesis: {label}")
        shares = np.union1d(rows["share"], thesis["share"])
        ax.set_xscale("log")
        ax.set_xticks(shares, [f"{share:.0%}" for share in shares])
        ax.minorticks_off()
        ax.set(xlabel="share of the training users", ylabel=metric_label(metric))
        ax.set_ylim(0, 1.06 * max(rows["high"].max(), thesis[metric].max()))
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], loc="outside upper right", ncols=2)
    return fig
