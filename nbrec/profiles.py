"""How large a run is: a small sample, a laptop, or the thesis's full size."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbrec.sequences import SequenceSettings

VARIANTS = {"original": 0, "truncated": 20}  # items cut off at the left (thesis section 2.2)


@dataclass(frozen=True)
class Profile:
    """Data, models and folds of a run.

    Args:
        name: names the folder of the records.
        dataset: what `movielens.load` is asked for.
        sequences: preprocessing; its `left_truncate` is replaced by that of the variant.
        variants: name of a variant of the sequences -> items cut off at the left.
        n_folds: into how many folds the users are split.
        folds_run: which of them are run.
        models: label -> settings of `recommenders.create`. The label is the model's name, unless
            the settings hold a "model": `{"narrow": {"model": "transformer", "d_model": 32}}`. The
            settings of a hybrid's contexts are those of the labels of the same names, or of the
            labels that its "contexts" name.
        seed: of the folds; the seed of a training run follows from it and the fold.
        mask_seen: whether items of the history are left out of the ranking.
        top_k: how many recommended items are counted for the popularity measures.
        durations: what takes about how long, in words, measured.
    """

    name: str
    dataset: str
    sequences: SequenceSettings = field(default_factory=SequenceSettings)
    variants: Mapping[str, int] = field(default_factory=lambda: dict(VARIANTS))
    n_folds: int = 10
    folds_run: tuple[int, ...] = tuple(range(10))
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    mask_seen: bool = True
    top_k: int = 20
    durations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.folds_run or not set(self.folds_run) <= set(range(self.n_folds)):
            raise ValueError(
                f"profile {self.name!r}: folds_run={self.folds_run}; expected some of "
                f"0..{self.n_folds - 1}"
            )

    @property
    def folds_text(self) -> str:
        """ "3 of 10 folds", to be said beside every number."""
        return f"{len(self.folds_run)} of {self.n_folds} folds"


def _models(ease_l2: float, rank: int, d_model: int, n_heads: int, input_dropout: float = 0.0,
            **train: Any) -> dict[str, dict[str, Any]]:
    """Every model at one size: two layers, inner widths as in the thesis's Tables 3.1 to 3.6."""
    shared = {"d_model": d_model, "n_layers": 2, "dropout": 0.1, "patience": 5,
              "min_improvement": 0.01, **train}
    recurrent = {"expand": 2, "input_dropout": input_dropout, **shared}
    backbones = {
        "transformer": {"n_heads": n_heads, "d_ff": 4 * d_model, **shared},
        "mamba": {"d_state": 16, "d_conv": 8, **recurrent},
        "xlstm": {"n_heads": 8, **recurrent},
    }
    contexts = ("tfidf", "minibert", "modernbert", "gcn", "lightgcn", "gat")
    return {
        "popularity": {},
        "markov": {},
        "ease": {"l2": ease_l2},
        "item-knn": {},
        "user-knn": {"neighbours": 50},
        "svd": {"rank": rank},
        **backbones,
        **{context: {} for context in contexts},
        **{f"{backbone}+{context}": settings for backbone, settings in backbones.items()
           for context in contexts},
        # As the thesis has it (section 3.6.4), and without its leak.
        **{f"{backbone}+gat+gat-user{form}": backbones[backbone]
           for backbone in ("transformer", "xlstm") for form in ("-literal", "")},
        # A graph that knows the training users alone.
        "gat-inductive": {"model": "gat", "inductive": True},
        "xlstm+gat-inductive": backbones["xlstm"] | {"model": "xlstm+gat",
                                                     "contexts": {"gat": "gat-inductive"}},
    }


# `input_dropout`, the EASE penalty, neighbours and rank were chosen on validation parts.
PROFILES = {
    # A few hundred users: enough to see everything work, too few to rank close models.
    "sample": Profile(
        name="sample",
        dataset="ml-latest-small",
        folds_run=(0, 1, 2),
        models=_models(ease_l2=30.0, rank=20, d_model=64, n_heads=2, input_dropout=0.2,
                       learning_rate=1e-3, batch_size=32, max_epochs=60),
    ),
    "laptop": Profile(
        name="laptop",
        dataset="ml-1m",
        models=_models(ease_l2=250.0, rank=50, d_model=128, n_heads=4, input_dropout=0.2,
                       learning_rate=1e-3, batch_size=128, max_epochs=60),
    ),
    # The thesis's own settings (sections 2.2, 3.2 to 3.4 and 4.1).
    "full": Profile(
        name="full",
        dataset="ml-latest",
        sequences=SequenceSettings(random_sample=0.3),
        models=_models(ease_l2=250.0, rank=50, d_model=512, n_heads=8, learning_rate=1e-4,
                       batch_size=128, max_epochs=200),
    ),
}


def get_profile(name: str | None = None) -> Profile:
    """The profile of this name; by default that of `$NBREC_PROFILE`, else "sample".

    Raises:
        ValueError: if there is no such profile.
    """
    name = name or os.environ.get("NBREC_PROFILE") or "sample"
    if name not in PROFILES:
        raise ValueError(
            f"there is no profile {name!r}; choose one of {', '.join(PROFILES)} (as argument, or "
            "in the environment variable NBREC_PROFILE)"
        )
    return PROFILES[name]
