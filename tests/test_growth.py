"""Exponents and crossings from costs that are known; one real measurement."""

import numpy as np
import pandas as pd
import pytest

from nbrec.book import growth
from nbrec.models.next_item import NextItemModel

LENGTHS = np.array([20, 90, 400, 1600])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_pure_power_is_found_exactly(power):
    found = growth.exponent(LENGTHS, 3.0 * LENGTHS**power)
    assert found == pytest.approx((power, power, power), abs=1e-6)


def test_the_interval_is_students():
    """Three points (0, 0), (1, 2), (2, 1) in logarithms: slope 1/2, standard error sqrt(3)/2,
    t(0.975, 1) = 12.706."""
    found = growth.exponent(np.exp([0, 1, 2]), np.exp([0, 2, 1]))
    assert found.value == pytest.approx(0.5)
    assert found.high - 0.5 == pytest.approx(12.706 * 3**0.5 / 2, rel=1e-4)
    assert 0.5 - found.low == pytest.approx(found.high - 0.5)
    with pytest.raises(ValueError, match="2 lengths"):
        growth.exponent([1, 2], [1, 2])


def test_crossing_of_a_linear_and_a_quadratic_cost():
    assert growth.crossing(LENGTHS, LENGTHS**2 / 300, LENGTHS) == pytest.approx(300)
    assert growth.crossing(LENGTHS, LENGTHS**2 / 9000, LENGTHS) is None  # not within the lengths
    assert growth.crossing(LENGTHS, LENGTHS * 2, LENGTHS) is None  # never below


def test_longer_histories_cost_more_memory():
    """In processes of their own; the logits' chunk is the same for both."""
    table = growth.measure([20, 400], ["mamba"], batch=4, d_model=32, n_items=50, repeats=1)
    assert table["length"].tolist() == [20, 400] and (table["seconds"] > 0).all()
    per_item = 4 * 64 * 4 / 2**20  # one float32 tensor of the inner width, MB for each item
    low, high = table["megabytes"]
    assert high - low > 5 * 380 * per_item  # a block keeps at least five such tensors, two blocks


@pytest.mark.parametrize("model, before", [("transformer", 5), ("mamba", 2), ("xlstm", 2)])
def test_the_timed_item_comes_after_a_history(monkeypatch, model, before):
    """Attention needs all five items in its state; the state of the others has one size anyway."""
    seen, step = [], NextItemModel.step

    def watched(self, items, state=None):
        seen.append(0 if state is None else state[0])
        return step(self, items, state)

    monkeypatch.setattr(NextItemModel, "step", watched)
    assert growth.next_item_cost(model, 5, d_model=16, n_items=50, repeats=3) > 0
    assert seen == [*range(before), before, before, before]


def test_steps_stand_beside_the_thesis_from_the_shortest_history_on():
    steps = pd.DataFrame([("mamba", 20, 2.0), ("mamba", 200, 8.0), ("mamba", 999, 1.0)],
                         columns=["model", "length", "seconds"])
    out = growth.beside_thesis(steps)
    assert out.index.tolist() == [20, 60, 90, 200]
    assert out["ours, ratio", "mamba"].dropna().to_dict() == {20: 1, 200: 4}
    assert out.loc[200, ("thesis, ratio", "transformer")] == pytest.approx(29.98 / 2.07)
    assert "ours, ratio" not in growth.beside_thesis(steps.iloc[:0])
    assert {*growth.load()["model"]} == set(growth.MODELS)
