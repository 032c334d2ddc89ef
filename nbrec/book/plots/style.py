"""One style for the whole book: colours, labels and markers of the models.

The same model has the same colour and marker in every figure. Widths fit the book's column
(720 pixels).
"""

from __future__ import annotations

from functools import cache

import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter

from nbrec.book import sweeps
from nbrec.metrics import METRICS
from nbrec.profiles import PROFILES

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
    "sasrec": ("SASRec", "#4C3BCF", "X"),
    "mamba": ("Mamba", "#56B4E9", "s"),
    "mamba4rec": ("Mamba4Rec", "#2A8FBD", "8"),
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
