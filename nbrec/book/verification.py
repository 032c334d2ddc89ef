"""Our models under the protocol of published numbers: leave-one-out on MovieLens 1M.

Protocol A (Klenitskiy and Vasilev 2023) leaves the items of the history out of the ranking,
protocol E (Liu et al. 2024) ranks them, too. Both ask for HR, NDCG and MRR at 10.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from importlib import resources

import numpy as np
import pandas as pd
from scipy import stats

from nbrec import experiment, metrics, records
from nbrec.book.significance import bootstrap_difference

MEASURES = {"hr@10": metrics.hits, "ndcg@10": metrics.discounted_gains,
            "mrr@10": metrics.reciprocal_ranks}
BAND = {"hr@10": (0.29, 0.32), "ndcg@10": (0.166, 0.183)}  # fixed before the first run
PAIRS = (  # with a trait that may be the reason of a difference, and without it
    ("sasrec", "transformer"), ("sasrec-batch_size-16", "sasrec"), ("mamba4rec", "mamba"),
    ("mamba4rec", "mamba4rec-every_item-0"), ("sasrec-every_item-1", "sasrec"))
RANKS = {"A": "rank", "E": "rank_with_seen"}  # protocol -> column of `records.per_user`


def published() -> pd.DataFrame:
    """Published numbers of MovieLens 1M: full ranking, last item of every user.

    Returns:
        published (the model there), ours (a model here that it is held against; one row for each),
        protocol, hr@10, ndcg@10, mrr@10 (NaN where none is printed), source (key of the
        bibliography).
    """
    with resources.files("nbrec.book").joinpath("published", "leave_one_out.csv").open(
            encoding="utf-8") as file:
        table = pd.read_csv(file)
    return table.assign(ours=table["ours"].str.split()).explode("ours", ignore_index=True)


def scores(users: pd.DataFrame) -> pd.DataFrame:
    """Our numbers at 10 under both protocols, with 95% intervals over the users.

    Args:
        users: of `records.per_user`, records of the profile "verification".

    Returns:
        model, protocol, metric, value, error (standard error), low, high, n (users).
    """
    rows = []
    for model, part in users.groupby("model", sort=False):
        for protocol, column in RANKS.items():
            for metric, measure in MEASURES.items():
                values = measure(part[column].to_numpy(), 10)
                error = values.std(ddof=1) / math.sqrt(len(values))
                half = stats.norm.ppf(0.975) * error
                mean = values.mean()
                rows.append((model, protocol, metric, mean, error, mean - half, mean + half,
                             len(values)))
    return pd.DataFrame(rows, columns=["model", "protocol", "metric", "value", "error", "low",
                                       "high", "n"])


def compare(users: pd.DataFrame) -> pd.DataFrame:
    """Published | ours | difference | verdict, for the models that have records.

    The papers print no intervals. Their numbers come from as many users as ours, so the difference
    is given twice our variance. The users are the same people, which makes this cautious: a
    verdict of "above" or "below" is safe, "agrees" may hide a small difference.

    Args:
        users: of `records.per_user`.

    Returns:
        published, model, protocol, metric, theirs, ours, low, high (of ours), difference, reach
        (half the difference's interval), verdict ("agrees", "above", "below"), source.
    """
    ours = scores(users).rename(columns={"value": "ours"})
    theirs = published().melt(["published", "ours", "protocol", "source"], var_name="metric",
                              value_name="theirs").dropna(subset="theirs")
    table = theirs.rename(columns={"ours": "model"}).merge(ours, on=["model", "protocol", "metric"])
    table["difference"] = table["ours"] - table["theirs"]
    table["reach"] = stats.norm.ppf(0.975) * math.sqrt(2) * table["error"]
    table["verdict"] = np.select(
        [table["difference"].abs() <= table["reach"], table["difference"] > 0],
        ["agrees", "above"], "below")
    return table[["published", "model", "protocol", "metric", "theirs", "ours", "low", "high",
                  "difference", "reach", "verdict", "source"]]


def sampled_hit_rate(ranks: np.ndarray, candidates: int | np.ndarray, negatives: int = 100,
                     k: int = 10) -> float:
    """The HR@k that the same model would report against a sample of items.

    The target is ranked among `negatives` items drawn uniformly without return, as many papers do
    (Krichene and Rendle 2020). How many of the r - 1 items ahead of it are drawn is
    hypergeometric; the target is a hit if fewer than k are.

    Args:
        ranks: int (U,), ranks among all candidates, 1 is best.
        candidates: the number of items that were ranked, the target included; one, or int (U,).
        negatives: how many are drawn, at most candidates - 1.

    Raises:
        ValueError: there are not so many items to draw.
    """
    fewest = int(np.min(candidates))
    if not 0 < negatives < fewest:
        raise ValueError(f"{negatives} negatives of {fewest} candidates: expected at least 1 "
                         f"and at most {fewest - 1}")
    ahead = np.minimum(np.asarray(ranks), candidates) - 1
    return float(stats.hypergeom.cdf(k - 1, candidates - 1, ahead, negatives).mean())


def protocols(users: pd.DataFrame, n_items: int) -> pd.DataFrame:
    """HR@10 of the same scores under four protocols.

    Args:
        users: of `records.per_user`, records of the profile "verification".
        n_items: size of the catalogue.

    Returns:
        model, unseen (all items, seen ones left out), all (seen ones too), sampled_100,
        sampled_1000 (as many items by chance), ahead (seen films that stand before the target,
        median of the users), history (its length, median).
    """
    rows = []
    for model, part in users.groupby("model", sort=False):
        rank, seen = part["rank"].to_numpy(), part["rank_with_seen"].to_numpy()
        candidates = n_items - part["history_length"].to_numpy()
        rows.append((model, metrics.hit_rate(rank, 10), metrics.hit_rate(seen, 10),
                     sampled_hit_rate(rank, candidates, 100),
                     sampled_hit_rate(rank, candidates, 1000), float(np.median(seen - rank)),
                     part["history_length"].median()))
    return pd.DataFrame(rows, columns=["model", "unseen", "all", "sampled_100", "sampled_1000",
                                       "ahead", "history"])


def trainings(df: pd.DataFrame) -> pd.DataFrame:
    """Size and training of each run: d_model, n_layers, dropout, batch_size (NaN where a model
    has none), epochs, best_epoch (from 1), minutes.

    Args:
        df: of `load_records`.
    """
    rows = []
    for record in df["record"]:
        own, history = record["settings"]["model"], record["history"]
        rows.append({"model": record["model"], **{name: own.get(name, np.nan) for name in
                                                  ("d_model", "n_layers", "dropout", "batch_size")},
                     "epochs": len(history["train_loss"]) if history else 0,
                     "best_epoch": history["best_epoch"] + 1 if history else np.nan,
                     "minutes": sum(record["seconds"].values()) / 60})
    return pd.DataFrame(rows, columns=["model", "d_model", "n_layers", "dropout", "batch_size",
                                       "epochs", "best_epoch", "minutes"])


def within_band(ours: pd.DataFrame) -> pd.DataFrame:
    """Whether the two Transformers lie in the `BAND` of values that was expected of them.

    Args:
        ours: of `scores`.

    Returns:
        model, protocol, metric, value, low, high, band_low, band_high, verdict ("inside", "above",
        "below"), reaches (whether the interval has a part of the band in it).
    """
    models = ("transformer", "sasrec")
    out = ours[ours["model"].isin(models) & ours["metric"].isin(BAND)].reset_index(drop=True)
    ends = np.array([BAND[m] for m in out["metric"]]).reshape(-1, 2)
    out = out[["model", "protocol", "metric", "value", "low", "high"]].assign(
        band_low=ends[:, 0], band_high=ends[:, 1])
    out["verdict"] = np.select([out["value"] < out["band_low"], out["value"] > out["band_high"]],
                               ["below", "above"], "inside")
    out["reaches"] = (out["low"] <= out["band_high"]) & (out["high"] >= out["band_low"])
    return out


def changes(users: pd.DataFrame) -> pd.DataFrame:
    """What the first of each of the `PAIRS` has more of HR@10 than the second, on the same users.

    Returns:
        first, second, protocol, difference, low, high (95% bootstrap over users); without the
        pairs that lack a model.
    """
    ranks = {m: part.sort_values("user") for m, part in users.groupby("model")}
    rows = []
    for a, b in PAIRS:
        for protocol, column in RANKS.items() if {a, b} <= set(ranks) else ():
            more, less = (metrics.hits(ranks[m][column].to_numpy(), 10) for m in (a, b))
            rows.append((a, b, protocol, *bootstrap_difference(more, less)[:3]))
    return pd.DataFrame(rows, columns=["first", "second", "protocol", "difference", "low", "high"])


def same_ranks(now: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    """Whether users have the ranks of their record.

    Args:
        now, then: of `records.per_user`.

    Returns:
        model, users, hr_now, hr_then (HR@10), same (the share of users with the same rank); NaN
        for a model that has no record.
    """
    rows = []
    for model, part in now.groupby("model", sort=False):
        ranks = part["rank"].to_numpy()
        before = then.loc[then["model"] == model, "rank"].to_numpy() if len(then) else ranks[:0]
        known = len(before) > 0
        rows.append((model, len(ranks), metrics.hit_rate(ranks, 10),
                     metrics.hit_rate(before, 10) if known else np.nan,
                     float(np.array_equal(ranks.shape, before.shape) and np.mean(ranks == before))
                     if known else np.nan))
    return pd.DataFrame(rows, columns=["model", "users", "hr_now", "hr_then", "same"])


def run_again(reference: pd.DataFrame, models: Iterable[str]) -> pd.DataFrame:
    """Run models anew, from the raw data, and hold their ranks to those of the records.

    Args:
        reference: records of the profile "verification"; those of other data are not compared.
        models: labels of the profile.

    Returns:
        as `same_ranks`.

    Raises:
        FileNotFoundError: the data cannot be had here.
        ValueError: more than a user in a thousand has another rank than in the record.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = experiment.run("verification", models=models, folder=folder, progress=False)
    same_data = reference[reference["ratings_sha256"].isin(fresh["ratings_sha256"])]
    out = same_ranks(records.per_user(fresh),
                     records.per_user(same_data) if len(same_data) else same_data)
    if wrong := out.loc[out["same"] < 0.999, "model"].tolist():
        raise ValueError(f"{wrong}: the ranks are not those of the records; a model, the data or "
                         "the records have changed")
    return out
