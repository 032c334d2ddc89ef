"""One style for the whole book: colours, labels and markers of the models.

The same model has the same colour and marker in every figure. Widths fit the book's column
(720 pixels).
"""

from __future__ import annotations

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import FuncFormatter

from nbrec import recommenders
from nbrec.book import sweeps
from nbrec.metrics import METRICS
from nbrec.profiles import PROFILES
from nbrec.recommenders import MODELS

WIDTH = 7.2  # inches; an inch of SVG is 96 pixels
INK, MUTED, GRID, PAPER = "#1f2933", "#66717d", "#dfe3e8", "#ffffff"
BLUE, VERMILION = "#0072B2", "#D55E00"
CYCLE = (BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")

UNKNOWN = "#444c56", "X"  # colour and marker of what has no entry in `recommenders.MODELS`
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
    "steady": "seconds at a steady pace",
    "log_seconds": "decades of seconds",
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
            "axes.prop_cycle": plt.cycler(color=CYCLE),
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
    """Label, colour and marker of a model, as its entry in `recommenders.MODELS` has them; grey and
    a cross for what has none."""
    try:
        parts = recommenders.parse(name)
    except ValueError:
        return " + ".join(map(_spelt, name.split("+"))), *UNKNOWN
    user = [f"user{' (literal)' * parts.literal}"] if parts.user else []
    label = " + ".join([*map(_spelt, (parts.base, *parts.items)), *user])
    if parts.base not in MODELS:
        return label, *UNKNOWN
    model, joined = MODELS[parts.base], name.partition("+")[2]
    marker = model.marker if not parts.user else "H" if parts.literal else "8"
    if not joined:
        return label, model.colour, marker
    white = 0.3 + 0.5 * list(MODELS).index(parts.contexts[0]) / len(MODELS)
    red, green, blue = (1 - white) * np.array(to_rgb(model.colour)) + white
    return label, model.hybrids.get(joined, to_hex((red, green, blue))), marker


def _spelt(part: str) -> str:
    stem = part.removesuffix("-inductive")  # a graph of the training users alone
    return (MODELS[stem].label if stem in MODELS else stem) + " (inductive)" * (stem != part)


def model_label(name: str) -> str:
    """A model as the book spells it: "xlstm+gat" -> "xLSTM + GAT".

    Settings that a profile changes are spelt out: "mamba-d_model-64" -> "Mamba, d_model 64".
    """
    label = model_style(name)[0]
    return _changed_labels().get(name, label) if label == name else label


@cache
def _changed_labels() -> dict[str, str]:
    """How the profiles' models with changed settings are spelt."""
    found = {}
    for models in (profile.models for profile in PROFILES.values()):
        for label, own in models.items():
            if (base := own.get("model", label)) != label and base in models:
                settings = {name: value for name, value in own.items() if name != "model"}
                words = [f"{name} {value:g}"
                         for name, value in sweeps.changed(settings, models[base]).items()
                         if value == value]  # a number
                found[label] = ", ".join([model_style(base)[0], *words])
    return found


def metric_label(metric: str) -> str:
    """A metric as the book spells it: "hr@20" -> "HR@20"."""
    kind, at, k = metric.partition("@")
    if kind in METRICS and at:
        return f"{METRICS[kind].label}@{k}"
    return METRIC_LABELS.get(metric, metric)


def thousands(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
