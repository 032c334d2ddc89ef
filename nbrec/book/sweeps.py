"""What other settings bring: runs with one setting changed, beside the run as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nbrec.book import comparison, costs, significance
from nbrec.metrics import per_user

UNNAMED = {"train_share": 1.0, "every_item": False}  # what a record that does not say it has
FOLLOWS = {"d_ff": "d_model"}  # a setting that goes along with another
SWEPT = ("hr@20", "hr@300", "mrr@300")  # of the thesis's sweeps
NO_CHOICE = {"name", "seed", "device", "precision"}  # they say nothing of what was tried


def changed(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, float]:
    """Settings that are not as usual, with their values; those that follow others are left out.

    Args:
        settings, usual: `record["settings"]["model"]` of a run, and of the model as it is.

    Returns:
        setting -> value; NaN for one that is no number.
    """
    own, base = ({**UNNAMED, **s} for s in (settings, usual))
    names = [n for n in {**base, **own} if n not in NO_CHOICE and own.get(n) != base.get(n)]
    return {n: float(own[n]) if isinstance(own.get(n), int | float) else np.nan
            for n in names if FOLLOWS.get(n) not in names}


def tried(df: pd.DataFrame, names: Iterable[str] = ("ndcg@20",)) -> pd.DataFrame:
    """One setting of a model changed at a time, beside the settings as they are.

    Args:
        df: records of runs with changed settings, under any label, and of the model as it is under
            its own; of one profile and dataset. What has changed stands in the records' settings.
            A run whose model has no record as it is, or that differs by more than one number, is
            left out.
        names: metrics.

    Returns:
        a row per model, setting, value and metric, in ascending order of the value: label, chosen
        (whether it is the value as it is), mean with its 95% interval (low, high) by a bootstrap
        over users, gap to the value as it is with the interval of that (gap_low, gap_high; paired
        on users), n (users), and means over the runs of epochs, steady (seconds) and n_train. The
        value as it is has a row of its own for every setting.
    """
    df = costs.steady(df) if len(df) else df
    runs = dict(tuple(df.groupby("model", sort=False))) if len(df) else {}
    settings = {m: part["record"].iloc[0]["settings"]["model"] for m, part in runs.items()}
    found: dict[tuple[str, str], dict[float, str]] = {}
    for label, own in settings.items():
        model = own.get("name", label)
        if label == model or model not in settings:
            continue
        difference = changed(own, settings[model])
        if len(difference) == 1 and np.isfinite(list(difference.values())).all():
            [(setting, value)] = difference.items()
            usual = float({**UNNAMED, **settings[model]}[setting])
            found.setdefault((model, setting), {usual: model})[value] = label
    rows = [{"model": model, "setting": setting, "value": value, "label": label,
             "chosen": label == model, "metric": name,
             **_measured(runs[label], runs[model], name)}
            for (model, setting), labels in found.items()
            for value, label in sorted(labels.items()) for name in names]
    return pd.DataFrame(rows, columns=["model", "setting", "value", "label", "chosen", "metric",
                                       *MEASURED])


MEASURED = ["mean", "low", "high", "gap", "gap_low", "gap_high", "n", "epochs", "steady", "n_train"]


def _measured(runs: pd.DataFrame, base: pd.DataFrame, name: str) -> dict[str, float]:
    users, usual = _per_user(runs, name), _per_user(base, name)
    common = [key for key in users if key in usual]
    values = np.concatenate(list(users.values()))
    mean = significance.bootstrap_difference(values, np.zeros_like(values))
    gap = (np.nan, np.nan, np.nan)
    if common:
        here, there = (np.concatenate([part[key] for key in common]) for part in (users, usual))
        gap = significance.bootstrap_difference(here, there)[:3]
    means = [runs[k].astype(float).mean() if k in runs else np.nan
             for k in ("epochs", "steady", "n_train")]
    return dict(zip(MEASURED, [*mean[:3], *gap, len(values), *means], strict=True))


def _per_user(runs: pd.DataFrame, name: str) -> dict[tuple, np.ndarray]:
    """Variant, fold and split -> a metric of each user."""
    return {(r.variant, r.fold, r.split_hash): per_user(name, r.record["ranks"])
            for r in runs.itertuples()}


def beside_thesis(number: str, tried: pd.DataFrame, setting: str) -> pd.DataFrame:
    """A sweep of the thesis, and ours of the same model and setting.

    Args:
        number: of the table, such as "3.2".
        tried: of the function of that name, with the metrics `SWEPT`.
        setting: our name of what the thesis changes.

    Returns:
        source ("thesis" or "ours"), model, value, metric (with "minutes" and "users"), mean, low,
        high.
    """
    theirs = comparison.thesis_table(number).rename(columns={"train_users": "users"})
    columns = [c for c in (*SWEPT, "minutes", "users") if c in theirs]
    parts = [theirs.melt(["model", "value"], columns, "metric", "mean").assign(source="thesis")]
    own = tried[tried["model"].isin(theirs["model"]) & (tried["setting"] == setting)]
    once = own.drop_duplicates("value")
    parts += [part.assign(source="ours") for part in (
        own[own["metric"].isin(SWEPT)],
        once[["model", "value"]].assign(metric="minutes", mean=once["steady"].astype(float) / 60),
        once[["model", "value"]].assign(metric="users", mean=once["n_train"])
        if "users" in columns else once.iloc[:0]) if len(part)]
    out = pd.concat(parts, ignore_index=True).reindex(
        columns=["source", "model", "value", "metric", "mean", "low", "high"])
    return out.astype({name: float for name in ("value", "mean", "low", "high")})
