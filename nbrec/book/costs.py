"""What accuracy costs: times that a busy machine does not distort, and what other settings bring.

Everything here reads a table of `records.load_records` and returns a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from nbrec.book import significance
from nbrec.metrics import per_user
from nbrec.records import histories, read_record

UNNAMED = {"train_share": 1.0, "every_item": False}  # what a record that does not say it has
LABEL = re.compile(r"(.+)-([a-z]\w*)-([-+.\de]+)")  # model, setting, value


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


def tried(df: pd.DataFrame, names: Iterable[str] = ("ndcg@20",)) -> pd.DataFrame:
    """One setting of a model changed at a time, beside the settings as they are.

    Args:
        df: records whose labels are "<model>-<setting>-<value>", and of the model as it is under
            its own label; of one profile and dataset.
        names: metrics.

    Returns:
        a row per model, setting, value and metric, in ascending order of the value: chosen
        (whether it is the value as it is), mean with its 95% interval (low, high) by a bootstrap
        over users, gap to the value as it is with the interval of that (gap_low, gap_high; paired
        on users), n (users), and means over the runs of epochs, steady (seconds) and n_train. The
        value as it is has a row of its own for every setting.
    """
    df = steady(df) if len(df) else df
    found = {label: LABEL.fullmatch(label) for label in df["model"].unique()} if len(df) else {}
    settings = dict.fromkeys(match.group(1, 2) for match in found.values() if match)
    rows = []
    for model, setting in settings:
        runs = {float(match[3]): df[df["model"] == label] for label, match in found.items()
                if match and match.group(1, 2) == (model, setting)}
        base, usual = df[df["model"] == model], None
        if len(base):
            kept = read_record(base["path"].iloc[0])["settings"]["model"]
            usual = float(kept[setting] if setting in kept else UNNAMED[setting])
            runs[usual] = base
        for value in sorted(runs):
            for name in names:
                rows.append({"model": model, "setting": setting, "value": value,
                             "chosen": value == usual, "metric": name,
                             **_measured(runs[value], base, name)})
    return pd.DataFrame(rows)


def _measured(runs: pd.DataFrame, base: pd.DataFrame, name: str) -> dict[str, float]:
    users, usual = _per_user(runs, name), _per_user(base, name)
    common = [key for key in users if key in usual]
    values = np.concatenate(list(users.values()))
    mean = significance.bootstrap_difference(values, np.zeros_like(values))
    gap = (np.nan, np.nan, np.nan)
    if common:
        gap = significance.bootstrap_difference(*(
            np.concatenate([part[key] for key in common]) for part in (users, usual)))
    costs = {k: runs[k].astype(float).mean() if k in runs else np.nan
             for k in ("epochs", "steady", "n_train")}
    return {"mean": mean.difference, "low": mean.low, "high": mean.high, "gap": gap[0],
            "gap_low": gap[1], "gap_high": gap[2], "n": len(values), **costs}


def _per_user(runs: pd.DataFrame, name: str) -> dict[tuple, np.ndarray]:
    """Variant, fold and split -> a metric of each user."""
    return {(r.variant, r.fold, r.split_hash): per_user(
        name, read_record(r.path)["ranks"]) for r in runs.itertuples()}
