"""Our models under the protocol of published numbers: leave-one-out on MovieLens 1M.

Protocol A (Klenitskiy and Vasilev 2023) leaves the items of the history out of the ranking,
protocol E (Liu et al. 2024) ranks them, too. Both ask for HR, NDCG and MRR at 10.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import pandas as pd
from scipy import stats

from nbrec import metrics

MEASURES = {"hr@10": metrics.hits, "ndcg@10": metrics.discounted_gains,
            "mrr@10": metrics.reciprocal_ranks}
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
    fewest = np.min(candidates)
    if not 0 < negatives < fewest:
        raise ValueError(f"{negatives} negatives of {fewest} candidates: expected at least 1 "
                         f"and at most {fewest - 1}")
    ahead = np.minimum(np.asarray(ranks), candidates) - 1
    return float(stats.hypergeom.cdf(k - 1, candidates - 1, ahead, negatives).mean())
