"""Personalisation on records and lists whose right numbers are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_records import save

from nbrec import records
from nbrec.book import NoRecords, personalisation
from nbrec.sequences import Sequences


def test_stars_follow_from_the_distance():
    assert [personalisation.stars(d) for d in (0, 0.25, 0.26, 0.5, 0.51, 9)] == [3, 3, 2, 2, 1, 1]


def test_measures_and_stars_beside_the_thesis(tmp_path):
    """The thesis gives Item-KNN two stars and the Transformer three on original sequences."""
    for fold, extra in enumerate((-0.01, 0.01)):
        for model, d in (("item-knn", 0.4), ("transformer", 0.9)):
            save(tmp_path, model=model, fold=fold, personalisation={
                "wasserstein": d + extra, "mean_popularity": 7.0, "behaviour_popularity": 5.0,
                "coverage": 0.5, "gini": 0.9, "stars": 1})
    df = records.load_records(tmp_path)
    table = personalisation.measures(df)
    assert table.index.tolist() == ["item-knn", "transformer"]
    assert table["wasserstein"].tolist() == pytest.approx([0.4, 0.9])
    assert table["sd"].tolist() == pytest.approx([0.01 * 2**0.5] * 2)
    assert table["stars"].tolist() == [2, 1] and table["folds"].tolist() == [2, 2]
    stars = personalisation.stars_beside_thesis({"run": df})
    assert stars[["model", "thesis", "stars"]].to_numpy().tolist() == [
        ["item-knn", 2, 2], ["transformer", 3, 1]]
    # Two folds: 0.4 +- 12.7 * 0.01 reaches the limit of 0.5; 0.9 does not.
    assert stars["unsure"].tolist() == [True, False]


def test_shuffled_lists_lose_the_person():
    test = Sequences(users=np.arange(4), items=np.array([0, 0, 1, 1, 2, 2, 3, 3], np.int32),
                     offsets=np.arange(0, 9, 2), catalogue=np.arange(4))
    own = SimpleNamespace(recommended=np.arange(4)[:, None])  # each gets the target
    alike = SimpleNamespace(recommended=np.zeros((4, 1), int))
    table = personalisation.shuffled({"own": own, "alike": alike}, test,
                                     np.array([1.0, 10, 100, 1000]), 0.5, n=4000)
    assert table["hits"].tolist() == [1, 0.25]
    assert table["hits_shuffled"].tolist() == pytest.approx([0.25, 0.25], abs=0.02)
    assert table.loc[0, "follows"] == pytest.approx(1) and table.loc[0, "low"] < -0.5


def people(rows):
    table = pd.DataFrame(rows, columns=["rank", "target_popularity", "history_length"])
    return table.assign(model="ease", fold=0, user=range(len(rows)))


def test_the_same_mix_takes_out_what_rare_targets_cost():
    """Hits depend on the target alone: popular ones hit, and long histories have fewer of them."""
    short = [(1, 100.0, 5)] * 30 + [(99, 1.0, 5)] * 10
    long = [(1, 100.0, 50)] * 10 + [(99, 1.0, 50)] * 30
    mix = personalisation.same_mix(people(short + long), [10]).set_index("place")
    assert mix["raw"].to_dict() == {0: 0.75, 1: 0.25}
    assert mix.loc[0, "fair"] == pytest.approx(mix.loc[1, "fair"])
    few = personalisation.same_mix(people(short + long[:5]), [10])
    assert few["place"].tolist() == [0]


def test_sides_of_two_models():
    a, b = people([(1, 5.0, 3), (10, 6.0, 3), (7, 7.0, 3), (50, 8.0, 3)]), people(
        [(10, 5.0, 3), (1, 6.0, 3), (7, 7.0, 3), (49, 8.0, 3)]).assign(model="svd")
    out = personalisation.sides(pd.concat([a, b]), "ease", "svd")
    assert out["users"].to_dict() == {"far behind": 1, "behind": 1, "level": 1, "far ahead": 1}
    assert out.loc["far ahead", "target_popularity"] == 5


def test_groups_need_records_that_hold_the_column(tmp_path):
    save(tmp_path, model="ease", ranks=(1, 50))
    df = records.load_records(tmp_path)
    assert personalisation.grouped(df, "target_popularity", [5], ["ease"])["users"].sum() == 2
    for column, models, against in (("history_length", ["ease"], None), (
            "target_popularity", ["svd"], None), ("target_popularity", ["ease"], "svd")):
        with pytest.raises(NoRecords, match="no record of"):
            personalisation.grouped(df, column, [5], models, against=against)
