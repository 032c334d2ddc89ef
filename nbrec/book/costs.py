"""What accuracy costs: times that a busy machine does not distort.

Everything here reads a table of `records.load_records` and returns a table.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from nbrec.records import histories


def steady(df: pd.DataFrame) -> pd.DataFrame:
    """Records with their times as a quiet machine would have taken them.

    All epochs of a model do the same work on folds of the same size. So the fastest of all its
    epochs, times the number of epochs, is the time of a run that nothing else disturbed.

    Returns:
        `df` with the columns epoch_seconds (of the fastest epoch), steady_fit, steady_context and
        steady (all of a run, scoring included). A model without epochs keeps its time. A context
        takes as long as in its own runs, where there are any: the mean of a graph's; of an
        encoder's, which reads each document once and keeps the vectors for later runs, the
        shortest of those that encoded.
    """
    out, curves = df.copy(), histories(df)
    by = ["profile", "dataset", "model", "variant"]
    out["epoch_seconds"] = np.nan
    if len(curves):
        fastest = curves.groupby(by)["seconds"].min()
        out["epoch_seconds"] = fastest.reindex(pd.MultiIndex.from_frame(out[by])).to_numpy()
        out["steady_fit"] = (out["epochs"] * out["epoch_seconds"]).fillna(out["seconds_fit"])
    else:
        out["steady_fit"] = out["seconds_fit"]
    measured = out["seconds_context"] if "seconds_context" in out else pd.Series(0.0, out.index)
    own = [_contexts(out, row) for _, row in out.iterrows()]
    out["steady_context"] = pd.Series(own, out.index, dtype=float).fillna(measured).fillna(0.0)
    out["steady"] = out["steady_fit"] + out["steady_context"] + out["seconds_score"]
    return out


def _contexts(df: pd.DataFrame, row: pd.Series) -> float:
    """Seconds of all contexts of a hybrid in their own runs, NaN if one has none."""
    names = {re.sub("-user(-literal)?$", "", part) for part in row["model"].split("+")[1:]}
    same = df[(df["profile"] == row["profile"]) & (df["dataset"] == row["dataset"])
              & (df["variant"] == row["variant"])]
    total = 0.0
    for name in names:
        runs = same[same["model"] == name]
        fits = runs["steady_fit"]
        encoded = runs["epoch_seconds"].isna() & (fits > fits.max() / 2)
        total += fits[encoded].min() if encoded.any() else fits.mean()
    return total


def complete(df: pd.DataFrame) -> pd.DataFrame:
    """The records of the models that have every fold of their variant, so that all meet one crowd.

    A model with a single fold, and the best of many such, would owe its place to luck.

    Args:
        df: of `records.load_records`, one profile and dataset.
    """
    folds = df.groupby(["variant", "model"])["fold"].transform("nunique")
    return df[folds == df.groupby("variant")["fold"].transform("nunique")]
