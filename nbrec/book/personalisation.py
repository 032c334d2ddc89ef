"""How far recommendations are from what users watch, and whom each model serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, wasserstein_distance

from nbrec import metrics, records
from nbrec.book import NoRecords, comparison, user_level
from nbrec.book.significance import summary
from nbrec.evaluate import Evaluation
from nbrec.sequences import Sequences

MEASURES = ("mean_popularity", "behaviour_popularity", "wasserstein", "coverage", "gini")
SIDES = ("far behind", "behind", "level", "ahead", "far ahead")


def stars(distance: float) -> int:
    """Stars of a distance in decades, by the limits of `metrics.STARS`."""
    return next(n for limit, n in metrics.STARS if distance <= limit)


def measures(df: pd.DataFrame, variant: str = "original") -> pd.DataFrame:
    """Measures of personalisation of each model, means over its folds, the nearest first.

    Returns:
        index model; the columns `MEASURES`, sd, low and high (of wasserstein), folds, stars.
    """
    own = summary(df[df["variant"] == variant], list(MEASURES))
    wide = own.pivot(index="model", columns="metric", values="mean").reindex(columns=MEASURES)
    distance = own[own["metric"] == "wasserstein"].set_index("model")
    wide = wide.join(distance[["sd", "low", "high", "n"]]).rename(columns={"n": "folds"})
    wide = wide.dropna(subset="wasserstein").sort_values("wasserstein")
    return wide.assign(stars=wide["wasserstein"].map(stars))


def stars_beside_thesis(both: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The thesis's stars, by eye, and ours, by rule.

    Args:
        both: label of a run -> records.

    Returns:
        variant, model, thesis, run, stars, wasserstein, unsure (whether a limit between stars lies
        within the 95% interval of the distance).
    """
    limits, rows = [limit for limit, _ in metrics.STARS if np.isfinite(limit)], []
    for variant, number in comparison.OVERVIEWS.items():
        theirs = comparison.thesis_table(number).set_index("model")["personalisation_stars"]
        for run, df in both.items():
            ours = measures(df, variant)
            for model in [m for m in theirs.index if m in ours.index]:
                r = ours.loc[model]
                rows.append((variant, model, int(theirs[model]), run, int(r["stars"]),
                             r["wasserstein"], any(r["low"] < x < r["high"] for x in limits)))
    return pd.DataFrame(rows, columns=["variant", "model", "thesis", "run", "stars", "wasserstein",
                                       "unsure"])


def target_distance(df: pd.DataFrame) -> pd.Series:
    """Variant -> distance to behaviour of the true next items, one for each user.

    Args:
        df: of `load_records`; a model with most folds is taken, since the targets are the same.
    """
    found = {}
    for variant, part in df.groupby("variant", sort=False):
        own = part[part["model"] == part["model"].value_counts().index[0]]
        watched = records.popularity_histograms(own).query("source == 'behaviour'")
        least = 500 / own["n_train"].mean()  # half of one user, in per mille
        found[variant] = wasserstein_distance(
            np.log10(np.maximum(records.per_user(own)["target_popularity"], least)),
            np.log10(np.maximum(watched["popularity"], least)), v_weights=watched["times"])
    return pd.Series(found, dtype=float)


def shuffled(results: Mapping[str, Evaluation], test: Sequences, popularity: np.ndarray,
             floor: float, n: int = 1000) -> pd.DataFrame:
    """What is left of each model if its lists are dealt out to other users at random.

    Args:
        results: model -> what it recommended to the test users.
        test: their sequences.
        popularity: (V,) per mille.
        floor: stands in for a popularity of 0.
        n: ways to shuffle.

    Returns:
        model, hits, hits_shuffled (share of users with the target in the list; mean over ways),
        follows (Spearman's correlation of the mean log popularity of history and list), low, high
        (its middle 95% over shuffled lists).
    """
    logs, rng = np.log10(np.maximum(popularity, floor)), np.random.default_rng(0)
    taste, targets = np.array([logs[h].mean() for h in test.histories()]), test.targets()[:, None]
    orders, rows = [rng.permutation(len(test)) for _ in range(n)], []
    for model, result in results.items():
        lists = result.recommended
        of_list = logs[lists].mean(axis=1)
        hits = np.mean([(lists[o] == targets).any(axis=1).mean() for o in orders])
        drawn = np.quantile([spearmanr(taste, of_list[o])[0] for o in orders], [0.025, 0.975])
        rows.append((model, (lists == targets).any(axis=1).mean(), hits,
                     spearmanr(taste, of_list)[0], *drawn))
    return pd.DataFrame(rows, columns=["model", "hits", "hits_shuffled", "follows", "low", "high"])


def grouped(df: pd.DataFrame, column: str, edges: int | Sequence[float], models: Iterable[str],
            metrics: Iterable[str] = ("hr@20",), against: str | None = None) -> pd.DataFrame:
    """`user_level.by_group` of some models, for each variant of the sequences.

    Raises:
        NoRecords: no record of these models has the column.
    """
    chosen, parts = [*models, *([against] if against else [])], []
    for variant, part in df[df["model"].isin(chosen)].groupby("variant", sort=False):
        users = records.per_user(part)
        if column in users and (against is None or against in set(users["model"])):
            users = users.dropna(subset=column)
            parts.append(user_level.by_group(users, column, edges, metrics, against).assign(
                variant=variant))
    if not parts:
        raise NoRecords(f"no record of {', '.join(chosen)} holds the {column.replace('_', ' ')}")
    return pd.concat(parts, ignore_index=True)


def same_mix(users: pd.DataFrame, lengths: Sequence[float]) -> pd.DataFrame:
    """HR@20 by length of the history: as it is, and with the same mix of target popularity.

    Args:
        users: of `records.per_user`, one variant, with history_length.
        lengths: where a group ends (inclusive); groups of fewer than 20 users are left out.

    Returns:
        model, place (of the group), raw (its mean), fair (mean over fifths of target popularity
        with the same weights for all groups; NaN where a fifth has no user).
    """
    users = users.assign(hit=metrics.hits(users["rank"].to_numpy(), 20),
                         place=np.searchsorted(lengths, users["history_length"]))
    everyone = users.drop_duplicates(["fold", "user"])
    cuts = np.unique(everyone["target_popularity"].quantile([0.2, 0.4, 0.6, 0.8]))
    users["fifth"] = np.searchsorted(cuts, users["target_popularity"])
    users = users[users["place"].map(everyone["place"].value_counts()) >= 20]
    fifths = np.searchsorted(cuts, everyone["target_popularity"])
    weights = pd.Series(fifths).value_counts(normalize=True)
    cells = users.pivot_table("hit", ["model", "place"], "fifth").reindex(columns=weights.index)
    fair = (cells * weights).sum(axis=1, skipna=False).rename("fair")
    raw = users.groupby(["model", "place"])["hit"].mean().rename("raw")
    return pd.concat([raw, fair], axis=1).reset_index()


def sides(users: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Users by how one model ranks their target beside another; far: ten times as high or low.

    Args:
        users: of `records.per_user`, one variant, both models.

    Returns:
        index side (of `SIDES`, as a stands); users, target_popularity and history_length (medians).
    """
    first, second = (users[users["model"] == m].set_index(["fold", "user"]) for m in (a, b))
    paired = first.join(second["rank"].rename("other"), how="inner")
    r = np.log10(paired["other"] / paired["rank"])
    side = pd.Series(np.select([r <= -1, r < 0, r == 0, r < 1], SIDES[:4], SIDES[4]), r.index)
    columns = [c for c in ("target_popularity", "history_length") if c in paired]
    out = paired.groupby(side)[columns].median()
    out.insert(0, "users", side.value_counts().reindex(out.index))
    return out.reindex([s for s in SIDES if s in out.index])
