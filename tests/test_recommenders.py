"""Names, settings and batches of recommenders."""

import numpy as np
import pytest
import torch

from nbrec import recommenders
from nbrec.sequences import Sequences


def data(users=25, n_items=12):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, n_items, rng.integers(2, 14)) for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


@pytest.fixture(scope="module")
def fitted():
    return recommenders.create("transformer", d_model=8, n_heads=2, max_length=6, max_epochs=1,
                               learning_rate=0.01).fit(data(), data())


def test_a_setting_that_no_model_has_is_refused_before_training():
    for name in recommenders.names():
        with pytest.raises(TypeError, match="depth|no arguments"):
            recommenders.create(name, depth=3)


def test_settings_reach_the_model_and_the_training(fitted):
    assert fitted.model.embedding.weight.shape == (12, 8) and fitted.model.blocks[0].n_heads == 2
    assert fitted.train_settings.learning_rate == 0.01 and len(fitted.history.seconds) == 1


def test_scores_come_back_in_the_order_of_the_histories(fitted):
    histories = data().histories()
    whole = fitted.score(histories)
    fitted.batch_size = 4
    try:
        assert fitted.score(histories) == pytest.approx(whole, abs=1e-5)
    finally:
        fitted.batch_size = 256
    for history, row in zip(histories, whole, strict=True):
        items = torch.from_numpy(history[-6:].astype(np.int64))  # max_length
        with torch.no_grad():
            plain = fitted.model.output(fitted.model(items[None])[0, -1])
        assert row == pytest.approx(plain.numpy(), abs=1e-5)
    assert np.ptp(whole, axis=0).max() > 1e-3  # rows differ, so their order can be seen


def test_the_callers_seed_does_not_matter():
    scores = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        np.random.seed(outside)
        scores.append(recommenders.create("transformer", d_model=8, n_heads=2, max_epochs=1)
                      .fit(data(), data()).score(data().histories()))
    assert np.array_equal(*scores)


@pytest.mark.parametrize("name", recommenders.names())
def test_no_histories_give_no_scores(name):
    if name in recommenders.NEURAL:
        model = recommenders.create(name, d_model=8, max_epochs=1).fit(data(), data())
    else:
        model = recommenders.create(name, **{"rank": 3} if name == "svd" else {}).fit(data())
    assert model.score([]).shape == (0, 12)


def test_scores_before_training_are_refused():
    with pytest.raises(RuntimeError, match="call fit first"):
        recommenders.create("mamba", d_model=8).score([np.array([1])])
