"""What the order of ratings within a second does to leave-one-out numbers.

    OMP_WAIT_POLICY=PASSIVE python -m nbrec.book.ties ml-1m --output results/ties.csv
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbrec import checks, files, metrics, paths, provenance, recommenders
from nbrec.data import movielens
from nbrec.evaluate import evaluate
from nbrec.preprocessing import build_sequences
from nbrec.profiles import get_profile
from nbrec.sequences import Sequences
from nbrec.trained import Trained

ORDERS = ("file", "id", "random")
KEYS = ["dataset", "model", "order", "seed", "protocol"]  # what a row of ties is of
NUMBERS = ["users", "hr@10", "ndcg@10", "error", "last_ahead"]
FACTS = ["commit", "cpu", "date"]  # of `provenance.facts`


def load() -> pd.DataFrame:
    """The committed measurements, `results/ties.csv`; without rows if the file is not there."""
    try:
        return _earlier(paths.reference_folder("sample").parent / "ties.csv")
    except FileNotFoundError:
        return pd.DataFrame(columns=[*KEYS, *NUMBERS, *FACTS])


def by_order(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of each order.

    Args:
        table: of `compare_ties`.

    Returns:
        dataset, model, protocol, order, users, hr@10, ndcg@10, error, gain (how many times the
        HR@10 of the order by chance, minus 1; NaN without that).
    """
    by = ["dataset", "model", "protocol"]
    out = table.groupby([*by, "order"], sort=False)[["users", "hr@10", "ndcg@10", "error"]].mean()
    chance = out[out.index.get_level_values("order") == "random"]["hr@10"].droplevel("order")
    keys = pd.MultiIndex.from_frame(out.reset_index()[by])
    return out.assign(gain=out["hr@10"] / chance.reindex(keys).to_numpy() - 1).reset_index()


def reorder_ties(ratings: pd.DataFrame, order: str, seed: int = 0) -> pd.DataFrame:
    """The same ratings with another order of the rows, so that ties in time fall another way.

    More than half of the neighbours in MovieLens 1M share a second with each other: films of one
    page, rated together. What stands there in which order is a choice of whoever sorts.

    Args:
        ratings: with a column timestamp.
        order: "file" (as it is), "id" (of the film), or "random".

    Raises:
        ValueError: there is no such order, or there are no times.
    """
    if "timestamp" not in ratings:
        raise ValueError(f"ratings with the columns {', '.join(ratings)}: expected a timestamp")
    checks.choice("order", order, ORDERS)
    if order == "file":
        return ratings
    if order == "id":
        return ratings.sort_values("movieId", kind="stable", ignore_index=True)
    rows = np.random.default_rng(seed).permutation(len(ratings))
    return ratings.iloc[rows].reset_index(drop=True)


def compare_ties(data: movielens.MovieLens, models: Iterable[str] = ("markov", "item-knn"),
                 orders: Iterable[str] = ORDERS, seeds: int = 3, name: str | None = None,
                 checkpoints: str | Path | None = None) -> pd.DataFrame:
    """What the order of ties in time does to each model, leave-one-out, all users.

    Args:
        data: with timestamps.
        models: labels of the profile "verification".
        orders: some of ``ORDERS``.
        seeds: how many random orders.
        name: what the data are called in the table; by default their own name.
        checkpoints: a folder; a training run that was stopped goes on from there.

    Returns:
        dataset, model, order, seed, protocol, users, hr@10, ndcg@10, error (standard error of
        hr@10), last_ahead (the share of users for whom the film that they have just seen scores
        at least as high as the target).

    Raises:
        ValueError: there is no such order or model, or there are no times.
    """
    profile, rows = get_profile("verification"), []
    checks.whole("seeds", seeds, low=1)
    models, orders = list(models), list(orders)
    for order in orders:
        checks.choice("order", order, ORDERS)
    if unknown := [m for m in models if m not in profile.models]:
        raise ValueError(f"the profile has no settings for {unknown}; expected some of "
                         f"{', '.join(profile.models)}")
    for order in orders:
        for seed in range(seeds if order == "random" else 1):
            sequences = build_sequences(reorder_ties(data.ratings, order, seed), profile.sequences)
            train, validation = sequences.shorten(2), sequences.shorten(1)
            for label in models:
                chosen = profile.chosen(label)
                model = recommenders.create(chosen.name, **chosen.settings)
                options = {}
                if checkpoints is not None and isinstance(model, Trained):
                    options["checkpoint"] = Path(checkpoints, f"{label}-{order}{seed}.safetensors")
                result = evaluate(model.fit(train, validation, **options), sequences)
                last_ahead = _last_ahead(model, sequences)
                for protocol, ranks in (("A", result.ranks), ("E", result.ranks_with_seen)):
                    hits = metrics.hits(ranks, 10)
                    rows.append((name or data.name, label, order, seed, protocol, len(ranks),
                                 hits.mean(), metrics.ndcg(ranks, 10),
                                 hits.std(ddof=1) / math.sqrt(len(ranks)), last_ahead))
    return pd.DataFrame(rows, columns=[*KEYS, *NUMBERS])


def _last_ahead(model: Any, sequences: Sequences) -> float:
    targets, ahead = sequences.targets(), 0
    for start in range(0, len(sequences), 256):
        histories = sequences.select(np.arange(start, min(start + 256, len(sequences)))).histories()
        scores, rows = model.score(histories), np.arange(len(histories))
        last = scores[rows, [history[-1] for history in histories]]
        ahead += (last >= scores[rows, targets[start : start + 256]]).sum()
    return ahead / len(sequences)


def _earlier(path: Path) -> pd.DataFrame:
    """The rows that a csv of ties has already; none if it is not there.

    Raises:
        ValueError: it is something else.
    """
    if path.suffix != ".csv":
        raise ValueError(f"{path}: expected the name of a csv, such as {path.with_suffix('.csv')}")
    columns = [*KEYS, *NUMBERS, *FACTS]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_csv(path)
        if sorted(table) != sorted(columns):
            raise ValueError(f"columns {', '.join(table)}; expected {', '.join(columns)}")
        if table[KEYS].isna().any(axis=None):
            raise ValueError(f"a row without {' or '.join(KEYS)}")
        return table.assign(**{name: pd.to_numeric(table[name]) for name in ("seed", *NUMBERS)})
    except ValueError as error:
        raise ValueError(f"{path} is no table of ties, so nothing can be added to it ({error}): "
                         "name another file") from error


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.book.ties", description=str(compare_ties.__doc__).splitlines()[0])
    parser.add_argument("data", help="a data set with timestamps: a name, or the path of a csv")
    parser.add_argument("--models", nargs="+", default=["markov", "item-knn"])
    parser.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    parser.add_argument("--seeds", type=int, default=3, help="random orders")
    parser.add_argument("--name", help="what the data are called in the table")
    parser.add_argument("--checkpoints", type=Path, help="a folder; stopped runs go on from there")
    parser.add_argument("--output", type=Path,
                        help="a csv, to which the rows are added; printed if not given")
    options = parser.parse_args(arguments)
    try:
        if options.output:
            _earlier(files.output_file(options.output))
        if options.checkpoints:
            files.writable(options.checkpoints)
        table = compare_ties(movielens.load(options.data), options.models, options.orders,
                             options.seeds, options.name, options.checkpoints)
    except (ValueError, FileNotFoundError) as error:
        parser.error(" ".join(str(error).split()))
    facts = provenance.facts()
    table = table.assign(**{k: facts[k] for k in FACTS})
    if not options.output:
        print(table.to_string())
        return
    earlier = _earlier(options.output)  # read anew: another run may have added rows meanwhile
    if len(earlier):
        table = pd.concat([earlier, table]).drop_duplicates(KEYS, keep="last")
    with files.atomic(options.output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
