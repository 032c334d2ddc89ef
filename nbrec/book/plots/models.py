"""Figures of single models: training curves, attention, matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from nbrec.book.plots.style import BLUE, INK, MUTED, PAPER, VERMILION, WIDTH, model_style


def training_curves(
    history: Any, ax: Axes | None = None, colour: str = BLUE,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Loss on the training and validation part by epoch (thesis Figure 4.1), the best one marked.

    Args:
        history: `train_loss` and `validation_loss` (nats) and `best_epoch` (counted from 0), as
            attributes or as keys, as in `train.LearningCurve` or the history of a record.
        ax: where to draw; by default a new figure.
        colour: of both curves.
        lines: name -> loss of something to compare with, such as popularity alone.
    """
    curve: Mapping[str, Any] = history if isinstance(history, Mapping) else vars(history)
    train, validation, best = (curve[k] for k in ("train_loss", "validation_loss", "best_epoch"))
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
    for name, loss in (lines or {}).items():
        ax.axhline(loss, color=INK, linewidth=1, linestyle=(0, (1, 3)))
        side = ("left", "center", "right")[min(3 * best // len(epochs), 2)]
        ax.text(best + 1, loss, f"{name}: {loss:.2f}", va="bottom", ha=side)  # above the best one
        ax.set_ylim(top=max(ax.get_ylim()[1], loss + 0.35))
    ax.legend(loc="lower left" if lines else "best")
    return ax.figure  # type: ignore[return-value]


def loss_curves(
    curves: pd.DataFrame, panels: Sequence[Sequence[str]], training: bool = False,
) -> Figure:
    """Validation loss of several models by epoch, the best epoch of each marked.

    Args:
        curves: of `records.histories`, one fold.
        panels: the models of each panel, side by side.
        training: whether to draw the loss on the training part as well, dashed.
    """
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(WIDTH, 3.2))
    for ax, models in zip(axes[0], panels, strict=True):
        for model in models:
            label, colour, marker = model_style(model)
            own = curves[curves["model"] == model]
            if training:
                ax.plot(own["epoch"], own["train_loss"], "--", color=colour, linewidth=1.2)
            ax.plot(own["epoch"], own["validation_loss"], color=colour, label=label)
            best = own[own["best"]]
            ax.plot(best["epoch"], best["validation_loss"], marker, color=colour,
                    markerfacecolor=PAPER, markeredgewidth=1.6)
        ax.set_xlabel("epoch")
        ax.legend()
    axes[0][0].set_ylabel("cross-entropy per item (nats)")
    return fig


def attention_map(weights: np.ndarray, titles: Sequence[str], longest: int = 30) -> Figure:
    """How much each item attends to itself and those before it, one panel per head.

    Args:
        weights: (H, L, L) float, rows sum to 1: row = where attention comes from.
        titles: L titles, oldest first; they name the rows, their numbers the columns.
        longest: titles are cut to this many characters.
    """
    weights = np.asarray(weights)
    if weights.ndim != 3 or weights.shape[1:] != (len(titles), len(titles)):
        raise ValueError(f"weights of shape {weights.shape} for {len(titles)} titles; expected "
                         f"(heads, {len(titles)}, {len(titles)})")
    heads, length, _ = weights.shape
    columns = min(2, heads)
    rows = math.ceil(heads / columns)
    panel = max(0.17 * length + 0.35, 1.2)  # a row of text needs its height
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, rows * panel + 0.7))
    labels = [f"{_cut(title, longest)}  {i}" for i, title in enumerate(titles, 1)]
    shown = np.where(np.tri(length, dtype=bool), weights, np.nan)  # the future is masked anyway
    for head, ax in enumerate(axes.flat):
        if head >= heads:
            ax.set_visible(False)
            continue
        ax.imshow(shown[head], cmap="Blues", vmin=0, vmax=np.nanmax(shown), aspect="auto")
        ax.set_title(f"head {head + 1}")
        ax.set_yticks(range(length), labels, fontsize=8)
        step = 1 if length <= 20 else 5
        ax.set_xticks(range(step - 1, length, step), range(step, length + 1, step), fontsize=8)
        ax.grid(False)
        ax.tick_params(length=0)
    for ax in axes[-1]:
        ax.set_xlabel("attends to item")
    fig.colorbar(axes[0, 0].images[0], ax=axes, label="attention weight", shrink=0.8, aspect=25,
                 pad=0.02)
    return fig


def matrices(
    panels: Mapping[str, np.ndarray], rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None, xlabel: str = "", ylabel: str = "",
    signs: Sequence[str] | None = None, chunk: int = 0, numbers: str = "",
) -> Figure:
    """Matrices side by side, with or without numbers in the cells.

    Blue cells start at 0, or at the smallest value if that is above half of the largest; a panel
    with negative values is red and blue around 0. NaN leaves a cell empty.

    Args:
        panels: title -> (R, C) float; all have as many rows.
        rows: names of the rows, cut to 34 characters; by default 1, 2, ..
        columns: names of the columns of the panels as wide as the first; by default 1, 2, ..; a
            single column has no name.
        signs: what stands behind each panel but the last, as in an equation: "+", "=". All panels
            then share one scale.
        chunk: frame squares of this size along the diagonals.
        numbers: format of the numbers in the cells, such as "{:.1f}"; then no bar explains the
            colours. By default none, and two decimals if there are signs.
    """
    panels = {name: np.asarray(values, float) for name, values in panels.items()}
    first = next(iter(panels.values()))
    if wrong := [n for n, v in panels.items() if v.ndim != 2 or len(v) != len(first)]:
        raise ValueError(f"panels {wrong}: expected matrices of {len(first)} rows as in the first")
    if rows is not None and len(rows) != len(first):
        raise ValueError(f"{len(rows)} names for {len(first)} rows")
    numbers = numbers or ("{:.2f}" if signs is not None else "")
    height = 2.3 if signs is not None else 0.24 * len(first) + (1.0 if numbers else 1.4)
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(WIDTH, height),
                             width_ratios=[v.shape[1] / first.shape[1] for v in panels.values()])
    if signs is not None:
        fig.get_layout_engine().set(wspace=0.07)  # type: ignore[union-attr, call-arg]
    room = 0.75 * WIDTH / sum(v.shape[1] for v in panels.values())  # inches for a column's name
    everything = np.concatenate([v.ravel() for v in panels.values()])
    for place, (ax, (name, values)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        scale = values if signs is None else everything
        low, high = np.nanmin(scale), np.nanmax(np.abs(scale))
        start = -high if low < 0 else 0 if low <= high / 2 else low
        image = ax.imshow(values, cmap="RdBu_r" if low < 0 else "Blues", vmin=start, vmax=high,
                          aspect="equal" if signs is not None or chunk else "auto")
        ax.set_title(name)
        width, step = values.shape[1], 1 if values.shape[1] <= 10 else 2
        labels: Sequence[Any] = range(1, width + 1) if width > 1 else [""]
        if columns is not None and width == first.shape[1]:
            labels = columns
        crowded = 0.07 * max(len(str(label)) for label in labels) > room
        ax.set_xticks(range(0, width, step), labels[::step], fontsize=8,
                      rotation=45 if crowded and labels is columns else 0)
        for corner in np.arange(0, len(first) if chunk else 0, chunk or 1) - 0.5:
            ax.add_patch(Rectangle((corner, corner), chunk, chunk, fill=False,
                                   edgecolor=VERMILION if low >= 0 else INK, linewidth=1.6))
        if not numbers:
            fig.colorbar(image, ax=ax, orientation="horizontal", shrink=0.8, aspect=16)
        for (i, j), value in np.ndenumerate(values) if numbers else ():
            word = "" if np.isnan(value) else numbers.format(value).replace("-", "\u2212")
            ax.text(j, i, word, ha="center", va="center",
                    fontsize=None if signs is not None else 8 if len(panels) < 3 else 6,
                    color=PAPER if abs(value) > 0.6 * high else INK)
        if signs is not None:
            if place < len(signs):
                ax.annotate(signs[place], (1, 0.5), (10, 0), xycoords="axes fraction", va="center",
                            textcoords="offset points", ha="center", fontsize=13)
        ax.tick_params(length=0)
        ax.grid(False)
    for ax in axes[0] if signs is None else ():
        ax.set_xlabel(xlabel)
    names = range(1, len(first) + 1) if rows is None else [
        _cut(n, 34) for n in rows]
    step = 1 if rows is not None or len(first) <= 10 else 2
    axes[0][0].set_yticks(range(0, len(first), step), names[::step], fontsize=8)
    axes[0][0].set_ylabel(ylabel)
    return fig


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
