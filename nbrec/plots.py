"""One style for the whole book: colours of the models, figures, tables.

Functions return the figure and never show it. Widths fit the book's column (720 pixels). The same
model has the same colour and marker in every figure.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH = 7.2  # inches; an inch of SVG is 96 pixels
INK, MUTED, GRID, PAPER = "#1f2933", "#66717d", "#dfe3e8", "#ffffff"
BLUE, VERMILION = "#0072B2", "#D55E00"

# Okabe and Ito's colours stay apart for colour-blind eyes. Each family has one hue and varies its
# lightness; markers tell its members apart without colour.
_MODELS = {  # name: (label, colour, marker)
    "popularity": ("Popularity", "#8c959f", "*"),
    "markov": ("Markov chain", "#57606a", "v"),
    "ease": ("EASE", "#000000", "P"),
    "item-knn": ("Item-KNN", "#E69F00", "D"),
    "user-knn": ("User-KNN", "#B87A00", "<"),
    "svd": ("SVD", "#7A5200", ">"),
    "tfidf": ("TF-IDF", "#F0C75E", "^"),
    "transformer": ("Transformer", BLUE, "o"),
    "mamba": ("Mamba", "#56B4E9", "s"),
    "xlstm": ("xLSTM", "#003F66", "^"),
    "gcn": ("GCN", "#8FD3BC", "v"),
    "lightgcn": ("LightGCN", "#00B386", "p"),
    "gat": ("GAT", "#006B4E", "h"),
    "minibert": ("MiniBERT", "#C9A227", "d"),
    "modernbert": ("ModernBERT", "#8A6D00", "d"),
}
_CONTEXTS = {"gat": "GAT", "lightgcn": "LightGCN", "gcn": "GCN", "minibert": "MiniBERT",
             "modernbert": "ModernBERT", "tfidf": "TF-IDF"}
_RAMPS = {  # one colour per context, in their order
    "transformer": ("#D95400", "#722D00", "#FF7014", "#FFA76E", "#993C00", "#FFD2B5"),
    "mamba": ("#C75699", "#702552", "#D580B3", "#E3ABCD", "#97326F", "#EECBE0"),
    "xlstm": ("#A860CA", "#682C82", "#BD87D7", "#D3AEE4", "#8137A5", "#EAD9F2"),
}
for _backbone, _ramp in _RAMPS.items():
    for (_context, _label), _colour in zip(_CONTEXTS.items(), _ramp, strict=True):
        _MODELS[f"{_backbone}+{_context}"] = (
            f"{_MODELS[_backbone][0]} + {_label}", _colour, _MODELS[_backbone][2])
for _name, _colours in {"transformer+gat": ("#E8894F", "#A33F00"),
                        "xlstm+gat": ("#D9BFE8", "#54206E")}.items():
    for _end, _words, _colour, _marker in (("", "user", _colours[0], "8"),
                                           ("-literal", "user (literal)", _colours[1], "H")):
        _MODELS[f"{_name}+gat-user{_end}"] = (f"{_MODELS[_name][0]} + {_words}", _colour, _marker)
MODEL_LABELS = {name: label for name, (label, _, _) in _MODELS.items()}
MODEL_COLOURS = {name: colour for name, (_, colour, _) in _MODELS.items()}
MODEL_MARKERS = {name: marker for name, (_, _, marker) in _MODELS.items()}
METRIC_LABELS = {
    "seconds": "seconds (fit and scoring)",
    "seconds_fit": "seconds to fit",
    "seconds_score": "seconds to score",
    "mean_popularity": "mean popularity (per mille)",
    "behaviour_popularity": "mean popularity of behaviour (per mille)",
    "wasserstein": "distance to behaviour (decades)",
    "coverage": "catalogue coverage",
    "gini": "Gini coefficient",
    "stars": "stars of personalisation",
    "best_epoch": "best epoch",
}


def use_style() -> None:
    """Set the book's style for all following figures; in a notebook, draw them as SVG."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 100,
            "figure.facecolor": PAPER,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": PAPER,
            "svg.fonttype": "path",  # looks the same everywhere; the alt text carries the words
            "svg.hashsalt": "nbrec",  # the same figure is the same file
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(
                color=[BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"]
            ),
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "text.color": INK,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "lines.markersize": 6.5,
            "image.cmap": "cividis",
        }
    )
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg", metadata={"Date": None})


def model_style(name: str) -> tuple[str, str, str]:
    """Label, colour and marker of a model; grey and a cross for one that has none of its own."""
    words = {"-user-literal": "user (literal)", "-user": "user", "gat-inductive": "GAT (inductive)"}
    parts = [next((word for end, word in words.items() if part.endswith(end)),
                  _CONTEXTS.get(part, _MODELS.get(part, (part,))[0])) for part in name.split("+")]
    label = " + ".join(parts)
    return _MODELS.get(name, (label, "#444c56", "X"))


def metric_label(metric: str) -> str:
    """A metric as the book spells it: "hr@20" -> "HR@20"."""
    return METRIC_LABELS.get(metric, metric.upper() if "@" in metric else metric)


def _thousands(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))


# --- data ----------------------------------------------------------------------------------------


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


def length_histogram(
    lengths: np.ndarray, keep: tuple[int, int] | None = None, log: bool = False, bins: int = 43
) -> Figure:
    """How many items the users have (thesis Figures 2.2 and 2.3).

    Args:
        lengths: int (U,), items of each user.
        keep: shade this range, ends included, and write the share of users in and outside of it.
        log: logarithmic axis, for lengths over several powers of ten.
        bins: about how many bars; on a linear axis each covers the same whole number of lengths.
    """
    lengths = np.asarray(lengths)
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
    _thousands(ax.yaxis)
    if log:
        ax.set_xscale("log")
        ticks = [d * 10**e for e in range(7) for d in (1, 2, 5)]
        ax.set_xticks([t for t in ticks if edges[0] <= t <= edges[-1]])
        ax.minorticks_off()
        _thousands(ax.xaxis)
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


def funnel_chart(funnel: pd.DataFrame) -> Figure:
    """What every preprocessing step leaves of users, films and interactions.

    Args:
        funnel: columns step, users, movies, ratings, as `Sequences.funnel`.
    """
    parts = [("users", "users", BLUE), ("movies", "films", "#009E73"),
             ("ratings", "interactions", "#E69F00")]
    fig, axes = plt.subplots(1, 3, sharey=True, figsize=(WIDTH, 0.42 * len(funnel) + 0.7))
    places = np.arange(len(funnel))
    for ax, (name, title, colour) in zip(axes, parts, strict=True):
        values = funnel[name].to_numpy()
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
    axes[0].set_yticks(places, [re.sub(r"^(\d+) ", r"\1. ", step) for step in funnel["step"]])
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


def by_position(
    draws: Mapping[str, np.ndarray], cut: int | None = None, columns: int = 2
) -> Figure:
    """Measures of the items at each place of the sequence, one panel each (Fan et al. 2024).

    Args:
        draws: label of the axis -> float (R, T), the measure at T places in R random draws of the
            users; the line is their mean, the band their 2.5% to 97.5% quantiles.
        cut: a dotted line after this many places.
        columns: panels side by side.
    """
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


# --- training ------------------------------------------------------------------------------------


def training_curves(history: Any, ax: Axes | None = None, colour: str = BLUE) -> Figure:
    """Loss on the training and validation part by epoch (thesis Figure 4.1), the best one marked.

    Args:
        history: `train_loss` and `validation_loss` (nats) and `best_epoch` (counted from 0), as
            attributes or as keys, as in `train.History` or the history of a record.
    """
    get = history.get if isinstance(history, Mapping) else lambda key: getattr(history, key)
    train, validation, best = get("train_loss"), get("validation_loss"), get("best_epoch")
    epochs = np.arange(1, len(train) + 1)
    if ax is None:
        _, ax = plt.subplots()
    ax.plot(epochs, train, color=colour, linestyle="--", linewidth=1.4, label="training")
    ax.plot(epochs, validation, color=colour, label="validation")
    ax.axvline(best + 1, color=MUTED, linewidth=0.9, linestyle=":")
    ax.plot(best + 1, validation[best], "o", color=colour, markerfacecolor=PAPER,
            markeredgewidth=1.8, markersize=8, linestyle="none",
            label=f"best: epoch {best + 1}, loss {validation[best]:.3f}")
    ax.set(xlabel="epoch", ylabel="cross-entropy per item (nats)")
    ax.set_xlim(0.5, len(epochs) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax.figure


def attention_map(
    weights: np.ndarray, titles: Sequence[str], columns: int = 2, longest: int = 30
) -> Figure:
    """How much each item attends to itself and those before it, one panel per head.

    Args:
        weights: (H, L, L) float, rows sum to 1: row = where attention comes from.
        titles: L titles, oldest first; they name the rows, their numbers the columns.
        columns: panels side by side.
        longest: titles are cut to this many characters.
    """
    weights = np.asarray(weights)
    if weights.ndim != 3 or weights.shape[1:] != (len(titles), len(titles)):
        raise ValueError(f"weights of shape {weights.shape} for {len(titles)} titles; expected "
                         f"(heads, {len(titles)}, {len(titles)})")
    heads, length, _ = weights.shape
    columns = min(columns, heads)
    rows = math.ceil(heads / columns)
    panel = max(0.17 * length + 0.35, 1.2)  # a row of text needs its height
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, rows * panel + 0.7))
    names = [t if len(t) <= longest else t[: longest - 1].rstrip() + "…" for t in titles]
    labels = [f"{name}  {i}" for i, name in enumerate(names, 1)]
    shown = np.where(np.tri(length, dtype=bool), weights, np.nan)  # the future is masked anyway
    image = None
    for head, ax in enumerate(axes.flat):
        if head >= heads:
            ax.set_visible(False)
            continue
        image = ax.imshow(shown[head], cmap="Blues", vmin=0, vmax=np.nanmax(shown), aspect="auto")
        ax.set_title(f"head {head + 1}")
        ax.set_yticks(range(length), labels, fontsize=8)
        step = 1 if length <= 20 else 5
        ax.set_xticks(range(step - 1, length, step), range(step, length + 1, step), fontsize=8)
        ax.grid(False)
        ax.tick_params(length=0)
    for ax in axes[-1]:
        ax.set_xlabel("attends to item")
    fig.colorbar(image, ax=axes, label="attention weight", shrink=0.8, aspect=25, pad=0.02)
    return fig


def matrices(
    panels: Mapping[str, np.ndarray], rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None, xlabel: str = "", ylabel: str = "",
    signs: Sequence[str] | None = None, chunk: int = 0, longest: int = 34,
) -> Figure:
    """Matrices side by side, with numbers in the cells if there are signs between the panels.

    Blue cells start at 0, or at the smallest value if that is above half of the largest; a panel
    with negative values is red and blue around 0. NaN leaves a cell empty.

    Args:
        panels: title -> (R, C) float; all have as many rows.
        rows: names of the rows, cut to `longest` characters; by default 1, 2, ..
        columns: names of the columns of the panels as wide as the first; by default 1, 2, ..; a
            single column has no name.
        signs: what stands behind each panel but the last, as in an equation: "+", "=". All panels
            then share one scale.
        chunk: frame squares of this size along the diagonals.
    """
    panels = {name: np.asarray(values, float) for name, values in panels.items()}
    first = next(iter(panels.values()))
    if wrong := [n for n, v in panels.items() if v.ndim != 2 or len(v) != len(first)]:
        raise ValueError(f"panels {wrong}: expected matrices of {len(first)} rows as in the first")
    if rows is not None and len(rows) != len(first):
        raise ValueError(f"{len(rows)} names for {len(first)} rows")
    height = 0.24 * len(first) + 1.4 if signs is None else 2.3
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(WIDTH, height),
                             width_ratios=[v.shape[1] / first.shape[1] for v in panels.values()])
    if signs is not None:
        fig.get_layout_engine().set(wspace=0.07)
    everything = np.concatenate([v.ravel() for v in panels.values()])
    for place, (ax, (name, values)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        scale = values if signs is None else everything
        low, high = np.nanmin(scale), np.nanmax(np.abs(scale))
        start = -high if low < 0 else 0 if low <= high / 2 else low
        image = ax.imshow(values, cmap="RdBu_r" if low < 0 else "Blues", vmin=start, vmax=high,
                          aspect="equal" if signs is not None or chunk else "auto")
        ax.set_title(name)
        width, step = values.shape[1], 1 if values.shape[1] <= 10 else 2
        named = columns is not None and width == first.shape[1]
        labels = columns if named else range(1, width + 1) if width > 1 else [""]
        ax.set_xticks(range(0, width, step), labels[::step], fontsize=8)
        for corner in np.arange(0, len(first) if chunk else 0, chunk or 1) - 0.5:
            ax.add_patch(Rectangle((corner, corner), chunk, chunk, fill=False,
                                   edgecolor=VERMILION if low >= 0 else INK, linewidth=1.6))
        if signs is None:
            fig.colorbar(image, ax=ax, orientation="horizontal", shrink=0.8, aspect=16)
        else:
            for (i, j), value in np.ndenumerate(values):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center",
                        color=PAPER if abs(value) > 0.6 * high else INK)
            if place < len(signs):
                ax.annotate(signs[place], (1, 0.5), (10, 0), xycoords="axes fraction", va="center",
                            textcoords="offset points", ha="center", fontsize=13)
        ax.tick_params(length=0)
        ax.grid(False)
    for ax in axes[0] if signs is None else ():
        ax.set_xlabel(xlabel)
    names = range(1, len(first) + 1) if rows is None else [
        n if len(n) <= longest else n[: longest - 1].rstrip() + "…" for n in rows]
    step = 1 if rows is not None or len(first) <= 10 else 2
    axes[0][0].set_yticks(range(0, len(first), step), names[::step], fontsize=8)
    axes[0][0].set_ylabel(ylabel)
    return fig


# --- popularity ----------------------------------------------------------------------------------


def log_density(
    popularity: np.ndarray, times: np.ndarray, grid: np.ndarray, floor: float
) -> np.ndarray:
    """Gaussian kernel density of log10 popularity, from weighted values.

    Silverman's rule of thumb gives the bandwidth, at least 0.04 decades: a model that recommends
    a handful of films a thousand times would get needles otherwise.

    Args:
        popularity: (N,) float, per mille, >= 0.
        times: (N,) how often each value comes up.
        grid: (G,) values of log10 popularity.
        floor: per mille, stands in for 0, whose logarithm does not exist.

    Returns:
        (G,) density per decade; its integral over the whole line is 1.
    """
    x = np.log10(np.maximum(np.asarray(popularity, dtype=float), floor))
    w = np.asarray(times, dtype=float) / np.sum(times)
    spread = math.sqrt(np.sum(w * (x - np.sum(w * x)) ** 2))
    width = max(1.06 * spread * np.sum(times) ** -0.2, 0.04)
    z = (np.asarray(grid)[:, None] - x) / width
    return np.exp(-0.5 * z**2) @ w / (width * math.sqrt(2 * math.pi))


def popularity_density(
    histograms: pd.DataFrame, models: Iterable[str] | None = None, variant: str = "original",
    columns: int = 2,
) -> Figure:
    """Popularity of what users watch (shaded) and of what a model recommends (dashed).

    Thesis Figures 4.2, 5.1 and A.1 to A.6; the legend gives mean popularity in per mille.

    Args:
        histograms: of `records.popularity_histograms`; folds are pooled.
        models: one panel each, in this order; by default all in the table.
        variant: which sequences.
        columns: panels side by side.
    """
    chosen = histograms[histograms["variant"] == variant]
    models = list(dict.fromkeys(chosen["model"])) if models is None else list(models)
    if missing := [m for m in models if m not in set(chosen["model"])]:
        raise ValueError(f"no records of {missing} on variant {variant!r}; there are "
                         f"{sorted(set(chosen['model']))}")
    positive = chosen.loc[chosen["popularity"] > 0, "popularity"]
    floor = positive.min() / 2
    low, high = np.log10(floor), np.log10(positive.max())
    grid = np.linspace(low - 0.3, high + 0.3, 500)
    columns = min(columns, len(models))
    rows = math.ceil(len(models) / columns)
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, 2.35 * rows + 0.3 if columns > 1 else 3.4 * rows))
    for ax in axes.flat[len(models):]:
        ax.set_visible(False)
    peaks = {"behaviour": 0.0, "recommended": 0.0}
    for ax, model in zip(axes.flat, models, strict=False):
        label, colour, _ = model_style(model)
        rows_of_model = chosen[chosen["model"] == model]
        for source, part in rows_of_model.groupby("source", sort=False):
            p, n = part["popularity"].to_numpy(float), part["times"].to_numpy(float)
            density, mean = log_density(p, n, grid, floor), np.average(p, weights=n)
            peaks[source] = max(peaks[source], density.max())
            if source == "behaviour":
                ax.fill_between(10**grid, density, color="#aab4be", alpha=0.55, linewidth=0,
                                label=f"users, mean {mean:.0f}‰", zorder=1)
            else:
                ax.plot(10**grid, density, color=colour, linestyle=(0, (4, 1.5)),
                        label=f"model, mean {mean:.0f}‰", zorder=3)
        ax.set_title(label)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.legend(loc="upper left", handlelength=2.2)
    # A model that knows only hits has a needle; it may leave the frame, with its height beside it.
    top = 1.05 * min(max(peaks.values()), 3 * peaks["behaviour"])
    axes[0, 0].set_ylim(0, top)
    for ax in axes.flat[: len(models)]:
        curve = ax.lines[0].get_ydata()
        if curve.max() > top:
            x = 10 ** grid[curve > top].max()
            ax.annotate(f"up to {curve.max():.1f}", (x, top), (7, -2), textcoords="offset points",
                        va="top", fontsize=8.5, color=MUTED)
    for ax in axes[:, 0]:
        ax.set_ylabel("density per decade")
    for column in range(columns):  # the lowest visible panel of each column carries the label
        lowest = [ax for ax in axes[:, column] if ax.get_visible()][-1]
        lowest.set_xlabel("popularity of the film (per mille of users)")
        lowest.tick_params(labelbottom=True)
    return fig


# --- results -------------------------------------------------------------------------------------


def metric_intervals(
    summary: pd.DataFrame, metric: str | Sequence[str] = "ndcg@20", variant: str = "original",
    thesis: pd.DataFrame | None = None,
) -> Figure:
    """Mean of a metric over folds with its 95% interval, one row per model, best on top.

    Args:
        summary: of `comparison.summary`.
        metric: one or several; each has a panel, all share the order of the first.
        variant: which sequences.
        thesis: of `comparison.compare_with_thesis`; its (corrected) values are hollow markers.
    """
    metrics = [metric] if isinstance(metric, str) else list(metric)
    chosen = summary[summary["variant"] == variant].set_index(["metric", "model"])
    if missing := [m for m in metrics if m not in chosen.index.get_level_values(0)]:
        raise ValueError(f"no {missing} on variant {variant!r} in the summary")
    order = chosen.loc[metrics[0], "mean"].sort_values().index
    fig, axes = plt.subplots(1, len(metrics), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.36 * len(order) + 1.25))
    for ax, name in zip(axes[0], metrics, strict=True):
        rows = chosen.loc[name].reindex(order)
        for place, (model, row) in enumerate(rows.iterrows()):
            _, colour, marker = model_style(model)
            low = max(row["low"], 0)  # no measure here can be negative
            ax.plot([low, row["high"]], [place, place], color=colour, linewidth=2.2,
                    alpha=0.55, solid_capstyle="round")
            ax.plot(row["mean"], place, marker, color=colour, markersize=7.5, clip_on=False)
        if thesis is not None:
            same = thesis[(thesis["metric"] == name) & (thesis["variant"] == variant)]
            same = same[same["model"].isin(order)]
            places = [order.get_loc(m) for m in same["model"]]
            ax.plot(same["corrected"], places, "o", markerfacecolor=PAPER, markeredgecolor=INK,
                    markeredgewidth=1.2, markersize=6.5, linestyle="none", zorder=4)
        ax.set_xlabel(metric_label(name))
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(8 // len(metrics) + 2, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes[0][0].set_yticks(range(len(order)), [model_style(m)[0] for m in order])
    for ax in axes[0]:
        ax.tick_params(axis="y", length=0)
    n = chosen.loc[metrics[0], "n"]
    folds = f"{n.max()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    whose = "" if thesis is None else "this run, "
    handles = [plt.Line2D([], [], color=MUTED, marker="o", linewidth=2.2, markersize=7,
                          label=f"{whose}mean of {folds} folds, 95% interval")]
    if thesis is not None:
        handles.append(plt.Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER,
                                  linestyle="none", label="thesis"))
    fig.legend(handles=handles, loc="outside upper right", ncols=2)
    return fig


def pair_matrix(pairs: pd.DataFrame, order: list[str], metric: str = "ndcg@20") -> Figure:
    """All pairs of models at once: how far the row's model is ahead of the column's.

    A dot marks pairs that are told apart; only the half with the better mean first is drawn.

    Args:
        pairs: of `comparison.compare_all`.
        order: models from the best to the worst.
        metric: what the differences are of.
    """
    n = len(order)
    place = {model: i for i, model in enumerate(order)}
    ahead, sure = np.full((n, n), np.nan), []
    for r in pairs.itertuples():
        if r.better in place and r.worse in place:
            i, j = sorted((place[r.better], place[r.worse]))
            ahead[i, j] = r.difference if place[r.better] == i else -r.difference
            sure += [(j, i)] if r.told_apart else []
    size = 0.32 * n + 1.8
    fig, ax = plt.subplots(figsize=(min(size + 0.6, 9.5), min(size, 8.2)))
    top = np.nanmax(np.abs(ahead), initial=1e-9)
    image = ax.imshow(ahead, cmap="Blues", vmin=0, vmax=top)
    for j, i in sure:
        ax.plot(j, i, "o", ms=3.2, color="white" if ahead[i, j] > 0.55 * top else INK)
    labels = [model_style(model)[0] for model in order]
    ax.set_xticks(range(n), labels, rotation=90, fontsize=8)
    ax.set_yticks(range(n), labels, fontsize=8)
    ax.grid(False)
    fig.colorbar(image, ax=ax, shrink=0.7, label=f"ahead in {metric_label(metric)}")
    return fig


def accuracy_vs_time(
    summary: pd.DataFrame, metric: str = "ndcg@20", time: str = "seconds",
    variant: str = "original",
) -> Figure:
    """Accuracy of each model against the time that it takes, time on a logarithmic axis."""
    chosen = summary[summary["variant"] == variant]
    wide = chosen[chosen["metric"].isin([metric, time])]
    mean = wide.pivot(index="model", columns="metric", values="mean")
    ends = chosen[chosen["metric"] == metric].set_index("model")[["low", "high"]]
    fig, ax = plt.subplots(figsize=(WIDTH, 4.2))
    ax.set_xscale("log")
    for model, row in mean.iterrows():
        label, colour, marker = model_style(model)
        ax.plot([row[time]] * 2, ends.loc[model].clip(lower=0), color=colour, linewidth=2,
                alpha=0.45, solid_capstyle="round")
        ax.plot(row[time], row[metric], marker, color=colour, markersize=9)
    ax.set(xlabel=metric_label(time), ylabel=metric_label(metric))
    ax.margins(x=0.2, y=0.08)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    fig.draw_without_rendering()  # settle the layout before the labels look for room
    _place_labels(ax, [(model_style(m)[0], r[time], r[metric], *ends.loc[m].clip(lower=0))
                       for m, r in mean.iterrows()])
    return fig


def _place_labels(ax: Axes, points: list[tuple[str, float, float, float, float]]) -> None:
    """Write a label beside each point, on the first side where it covers nothing.

    Args:
        points: label, x, y, and the ends of the interval around y.
    """
    pixels, scale = ax.transData.transform, ax.figure.dpi / 72
    taken = []
    for _, x, y, low, high in points:
        (left, middle), (_, bottom), (_, top) = pixels([(x, y), (x, low), (x, high)])
        taken.append((left - 6, middle - 6, left + 6, middle + 6))
        if np.isfinite(top):
            taken.append((left - 2, bottom, left + 2, top))
    sides = [(9, 0, "left", "center"), (-9, 0, "right", "center"), (8, 9, "left", "bottom"),
             (8, -9, "left", "top"), (-8, 9, "right", "bottom"), (-8, -9, "right", "top"),
             (0, 9, "center", "bottom"), (0, -9, "center", "top")]
    frame = ax.get_window_extent()
    for label, x, y, _, _ in points:
        tried = []
        for place, (dx, dy, ha, va) in enumerate(sides):
            text = ax.annotate(label, (x, y), (dx, dy), textcoords="offset points", ha=ha, va=va,
                               fontsize=9)
            text.set_in_layout(False)  # else the axes would shrink for it, and move the points
            box = text.get_window_extent().padded(scale)
            covered = sum(box.x0 < r and left < box.x1 and box.y0 < t and b < box.y1
                          for left, b, r, t in taken)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0
            tried.append((covered + 2 * outside, place, text, tuple(box.extents)))
        _, chosen, _, extents = min(tried)
        for _, place, text, _ in tried:
            if place != chosen:
                text.remove()
        taken.append(extents)


# --- interactive figures -------------------------------------------------------------------------


def show_plotly(fig: Any, name: str) -> Any:
    """Show a Plotly figure: inside the book without any request, elsewhere as Plotly does.

    Args:
        fig: a plotly Figure.
        name: id of the element, unique on its page; fixed, so that the page stays the same.

    Returns:
        IPython HTML if `$NBREC_BOOK` is set to 1 (the pages load plotly.min.js), else None after
        `fig.show()`.
    """
    if os.environ.get("NBREC_BOOK") != "1":
        return fig.show()
    from IPython.display import HTML
    from plotly.io import to_html

    html = to_html(fig, include_plotlyjs=False, full_html=False, div_id=name, auto_play=False,
                   config={"responsive": True, "displaylogo": False})
    return HTML(f'<div class="plotly-figure">{html}</div>')


# --- tables --------------------------------------------------------------------------------------


def mean_sd(
    mean: float, sd: float | None = None, percent: bool = False, digits: int | None = 4
) -> str:
    """ "0.1753 ± 0.0105", or "17.53% ± 1.05" with percent; a dash for what is not known.

    Without `digits` the mean has three significant ones, but at most three decimals: for times.
    """
    if mean is None or not math.isfinite(mean):
        return "–"
    if digits is None:
        digits = min(3, max(0, 2 - math.floor(math.log10(mean)))) if mean > 0 else 0
    scale, unit, digits = (100, "%", max(digits - 2, 0)) if percent else (1, "", digits)
    text = f"{scale * mean:.{digits}f}{unit}"
    known = sd is not None and math.isfinite(sd)
    # No-break spaces: a narrow column must not tear the two apart.
    return f"{text}\u00a0±\u00a0{scale * sd:.{digits}f}" if known else text


def table(
    df: pd.DataFrame, caption: str | None = None, percent: Iterable[str] = (), digits: int = 4,
    best: Mapping[str, str] | None = None, index: bool = True,
):
    """A table as the book shows it.

    Args:
        df: numbers and text; whole numbers get thousands separators, others `digits` decimals.
        caption: stands below the table.
        percent: columns of fractions to be shown as per cent, with two decimals less.
        digits: decimals.
        best: column -> "max" or "min": its best values are set in bold.
        index: whether to show the index.

    Returns:
        a pandas Styler.
    """
    percent = set(percent)

    def show(column):
        def text(value):
            if isinstance(value, str):
                return value
            if value is None or pd.isna(value):
                return "–"
            if column in percent:
                return mean_sd(value, percent=True, digits=digits)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            return f"{value:,}" if whole else (
                f"{value:,.{digits}f}" if isinstance(value, float | np.floating) else str(value))
        return text

    styler = df.style.format({column: show(column) for column in df.columns})
    for column, which in (best or {}).items():
        winner = getattr(df[column], which)()
        styler = styler.map(
            lambda v, w=winner: "font-weight: bold" if v == w else "", subset=[column])
    numbers = df.select_dtypes("number").columns
    styler = styler.set_properties(subset=list(numbers), **{"text-align": "right"})
    return _dress(styler if index else styler.hide(axis="index"), caption)


def _dress(styler, caption: str | None):
    styler = styler.set_table_attributes('class="dataframe nbrec-table"')
    styler = styler.set_table_styles([
        {"selector": "caption", "props": "caption-side: bottom; text-align: left"},
        {"selector": "th.row_heading", "props": "text-align: left"},
    ])
    return styler.set_caption(caption) if caption else styler


def results_table(
    summary: pd.DataFrame, metrics: Sequence[str] = ("hr@1", "hr@20", "hr@300", "ndcg@20"),
    variant: str = "original", caption: str | None = None, sort: str | None = None,
):
    """Mean ± standard deviation over folds, one row per model, the best of each column in bold.

    Args:
        summary: of `comparison.summary`, one profile and dataset.
        metrics: columns; "seconds" and other measures may be among them.
        sort: a metric to order by, best first; by default the order of the summary.
    """
    chosen = summary[(summary["variant"] == variant) & summary["metric"].isin(metrics)]
    models = list(dict.fromkeys(chosen["model"]))
    mean, sd = (chosen.pivot(index="model", columns="metric", values=v).reindex(models)
                for v in ("mean", "sd"))
    if sort:
        mean = mean.sort_values(sort, ascending=_smaller_is_better(sort))
    names = [model_style(m)[0] for m in mean.index]
    cells, weights = {}, {}
    for metric in metrics:
        digits = None if metric.startswith("seconds") else 4 if "@" in metric else 2
        cells[metric_label(metric)] = [
            mean_sd(mean.at[m, metric], sd.at[m, metric], digits=digits) for m in mean.index]
        best = mean[metric].min() if _smaller_is_better(metric) else mean[metric].max()
        weights[metric_label(metric)] = np.where(mean[metric] == best, "font-weight: bold", "")
    frame = pd.DataFrame(cells, index=names)
    bold = pd.DataFrame(weights, index=frame.index)
    styler = frame.style.apply(lambda _: bold, axis=None).set_properties(**{"text-align": "right"})
    return _dress(styler, caption)


def _smaller_is_better(metric: str) -> bool:
    return metric.startswith("seconds") or metric in ("wasserstein", "gini", "mean_popularity")


def comparison_table(
    comparison: pd.DataFrame, metrics: Sequence[str] = ("hr@20", "ndcg@20"),
    caption: str | None = None,
):
    """Thesis | this run | difference for a few metrics; notes on wrong printed numbers below.

    Args:
        comparison: of `comparison.compare_with_thesis`.
        metrics: groups of columns.
    """
    chosen = comparison[comparison["metric"].isin(metrics)]
    notes = list(dict.fromkeys(n for n in chosen["note"] if n))
    signs = {note: "*" * (i + 1) for i, note in enumerate(notes)}
    models = list(dict.fromkeys(chosen["model"]))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for metric in metrics:
        digits = 1 if metric.startswith("seconds") else 4
        rows = chosen[chosen["metric"] == metric].set_index("model")
        for part in ("thesis", "this run", "difference"):
            cells[metric_label(metric), part] = {}
        for model, row in rows.iterrows():
            thesis = mean_sd(row["thesis"], digits=digits) + signs.get(row["note"], "")
            ours = mean_sd(row["this_run"], row["sd"], digits=digits)
            gap = f"{row['difference']:+.{digits}f}".replace("-", "−")
            for part, text in (("thesis", thesis), ("this run", ours), ("difference", gap)):
                cells[metric_label(metric), part][model] = text
    frame = pd.DataFrame(cells).reindex(models).fillna("–")
    frame.index = [model_style(m)[0] for m in models]
    below = [f"{sign} {note}; the difference is taken to that." for note, sign in signs.items()]
    text = " ".join(([caption] if caption else []) + below)
    return _dress(frame.style.set_properties(**{"text-align": "right"}), text or None)
