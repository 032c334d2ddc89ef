"""What a sceptic would try on the numbers: targets that leak, a second way to the same number, an
outside judge."""

import csv
import io
import math
import os
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from nbrec import experiment, metrics, paths, recommenders, records
from nbrec.data import movielens
from nbrec.evaluate import evaluate
from nbrec.profiles import PROFILES
from nbrec.sequences import Sequences

SAMPLE = PROFILES["sample"]
SMALL = {"d_model": 8, "max_epochs": 1}


@pytest.fixture(scope="module")
def parts():
    data = movielens.load("ml-latest-small")
    sequences = experiment.make_sequences(SAMPLE, data)
    return experiment.make_documents(data), experiment.make_folds(SAMPLE, sequences)[0].parts(
        sequences)


@pytest.mark.parametrize("name", ["item-knn", "user-knn", "svd", "ease", "markov", "tfidf",
                                  "transformer", "mamba", "xlstm", "lightgcn",
                                  "xlstm+lightgcn+lightgcn-user-literal"])
def test_targets_that_are_exchanged_move_no_score(name, parts):
    """The canary: a score that changes with the target has seen it."""
    documents, (train, validation, test) = parts
    settings = {"n_heads": 2} if name.split("+")[0] in ("transformer", "xlstm") else {}
    settings |= SMALL if recommenders.parse(name).base in ("transformer", "mamba", "xlstm") else {}
    contexts = {"lightgcn": recommenders.create("lightgcn", d_model=8, max_epochs=1)}
    model = (contexts["lightgcn"] if name == "lightgcn" else recommenders.create(
        name, documents, contexts if "+" in name else None, **settings))

    def scores(part):
        seen = []

        class Noted:
            def score(self, histories):
                seen.append(model.score(histories))
                return seen[-1]

        return evaluate(Noted(), part), np.concatenate(seen)

    exchanged = test.items.copy()
    last = test.offsets[1:] - 1
    exchanged[last] = np.roll(exchanged[last], 1)
    others = Sequences(test.users, exchanged, test.offsets, test.catalogue)
    options = {"others": test.histories()} if "lightgcn" in name else {}
    model.fit(train, validation, **options)
    (one, before), (two, after) = scores(test), scores(others)
    assert (before == after).all() and before.std() > 0
    assert (one.ranks != two.ranks).mean() > 0.5


def test_item_knn_from_the_raw_file_has_the_ranks_of_the_record():
    """Nothing of the package but its folds: csv to ranks in plain Python."""
    rated = defaultdict(list)
    with zipfile.ZipFile(Path(os.environ.get("NBREC_DATA", "data")) / "ml-latest-small.zip") as z:
        rows = csv.DictReader(io.TextIOWrapper(z.open("ml-latest-small/ratings.csv"), "utf-8"))
        for row in rows:
            rated[int(row["userId"])].append((int(row["timestamp"]), int(row["movieId"]),
                                              float(row["rating"])))
    histories = {}
    for user in sorted(rated):
        films = sorted(rated[user], key=lambda r: r[0])
        liked = [film for _, film, stars in films if stars >= 3]
        if 5 <= len(films) <= 90 and len(liked) >= 2:
            histories[user] = liked
    users = list(histories)
    data = movielens.load("ml-latest-small")
    fold = experiment.make_folds(SAMPLE, experiment.make_sequences(SAMPLE, data))[0]
    seen_by = defaultdict(set)
    for place in fold.train:
        for film in histories[users[place]]:
            seen_by[film].add(users[place])
    catalogue = {film for films in histories.values() for film in films}

    def similarity(a, b):
        if not seen_by[a] or not seen_by[b]:
            return 0.0
        return len(seen_by[a] & seen_by[b]) / math.sqrt(len(seen_by[a]) * len(seen_by[b]))

    path = paths.reference_folder("sample") / "ml-latest-small/item-knn/original-fold00.json"
    record = records.read_record(path)
    assert [users[place] for place in fold.test] == record["users"]
    for place, rank in list(zip(fold.test, record["ranks"], strict=True))[::5]:
        *history, target = histories[users[place]]
        scores = {film: sum(similarity(film, seen) for seen in history)
                  for film in catalogue - set(history) | {target}}
        least, most = (1 + sum(s > scores[target] + slack for f, s in scores.items() if f != target)
                       for slack in (1e-6, -1e-6))  # float32 decides what is a tie
        assert least <= rank <= most
        assert most == least or scores[target] == 0 or most - least < 20


def test_metrics_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(50.0), (200, 1)), axis=1)  # no ties
    targets = rng.integers(0, 50, 200)
    truth = np.zeros_like(scores)
    truth[np.arange(200), targets] = 1
    ranks = metrics.target_ranks(scores, targets)
    for k in (1, 5, 20, 50):
        assert metrics.ndcg(ranks, k) == pytest.approx(ndcg_score(truth, scores, k=k), abs=1e-12)
        if k < 50:
            theirs = top_k_accuracy_score(targets, scores, k=k, labels=np.arange(50))
            assert metrics.hit_rate(ranks, k) == pytest.approx(theirs, abs=1e-12)
    whole = label_ranking_average_precision_score(truth, scores)
    assert metrics.mrr(ranks, 50) == pytest.approx(whole, abs=1e-12)
