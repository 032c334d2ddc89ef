"""What accuracy costs: times that a busy machine does not distort.

Everything here reads a table of `records.load_records` and returns a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nbrec.book.significance import paired_test
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


def times(df: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds of each model's parts over its folds.

    Args:
        df: of `steady`, one profile, dataset and variant.

    Returns:
        index model; fit (at a steady pace), contexts (NaN without any), score, epochs, steady
        (all of them), epoch_seconds, slowed (how many times its steady time training took).
    """
    own = df.assign(slowed=df["seconds_fit"] / df["steady_fit"])
    columns = {"steady_fit": "fit", "steady_context": "contexts", "seconds_score": "score",
               "epochs": "epochs", "steady": "steady", "epoch_seconds": "epoch_seconds",
               "slowed": "slowed"}
    out = own.reindex(columns=["model", *columns]).groupby("model")[list(columns)].mean()
    out = out.rename(columns=columns)
    return out.assign(contexts=out["contexts"].where(out["contexts"] > 0))


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Which points no other one beats: cheaper or better, and in neither respect worse.

    Returns:
        bool (N,); points that are alike in both respects stand or fall together.
    """
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    no_worse = (cost[:, None] <= cost) & (value[:, None] >= value)
    better = (cost[:, None] < cost) | (value[:, None] > value)
    return np.asarray(~(no_worse & better).any(0))


def front(df: pd.DataFrame, metric: str = "ndcg@20") -> pd.DataFrame:
    """The models on the Pareto front of accuracy and steady time, and each step up it.

    Args:
        df: of `steady`, one profile, dataset and variant; models without all folds are left out.

    Returns:
        model, steady, value, and for the step from the model before (NaN for the first): times
        (as much time), difference with low and high of the corrected t-test (NaN where there are
        not two folds); the cheapest first.
    """
    whole = complete(df)
    means = whole.groupby("model")[["steady", metric]].mean().sort_values("steady")
    means = means[pareto_front(means["steady"], means[metric])]
    rows = []
    for i, (model, (steady_time, value)) in enumerate(means.iterrows()):
        step: Sequence[float] = (np.nan,) * 4
        if i and whole["fold"].nunique() > 1:
            variant = whole["variant"].iloc[0]
            test = paired_test(whole, model, means.index[i - 1], metric, variant)
            step = (steady_time / means["steady"].iloc[i - 1], *test[:3])
        rows.append((model, steady_time, value, *step))
    return pd.DataFrame(rows, columns=["model", "steady", "value", "times", "difference", "low",
                                       "high"])


def within(front: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """The most accurate model within each time.

    Args:
        front: of the function of that name.
        limits: words -> seconds.

    Returns:
        index of the words; model and value, "" and NaN where nothing is so fast.
    """
    rows = {}
    for words, limit in limits.items():
        best = front[front["steady"] <= limit].tail(1)
        rows[words] = (best["model"].item(), best["value"].item()) if len(best) else ("", np.nan)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["model", "value"])
