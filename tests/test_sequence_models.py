"""The Transformer, the loss and the training loop against plain twins, in float64."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from nbrec import losses, metrics, recommenders
from nbrec import train as training
from nbrec.evaluate import evaluate
from nbrec.models.next_item import sasrec, transformer
from nbrec.models.transformer import TransformerBlock, causal_mask, sinusoidal_positions
from nbrec.sequences import Sequences
from nbrec.train import TrainSettings, batches, fit


def sequences(users, n_items):
    offsets = np.concatenate(([0], np.cumsum([len(u) for u in users])))
    flat = np.concatenate(users).astype(np.int32)
    return Sequences(np.arange(len(users)), flat, offsets, np.arange(n_items))


def random_sequences(seed=0, users=30, n_items=12, longest=9):
    rng = np.random.default_rng(seed)
    return sequences([rng.integers(0, n_items, rng.integers(2, longest)) for _ in range(users)],
                     n_items)


@pytest.fixture
def block():
    torch.manual_seed(0)
    return TransformerBlock(16, n_heads=4, dropout=0.0).double().eval()


def test_block_equals_torchs_encoder_layer(block):
    twin = torch.nn.TransformerEncoderLayer(16, 4, 64, 0.0, batch_first=True).double().eval()
    with torch.no_grad():
        twin.self_attn.in_proj_weight.copy_(block.w_qkv.weight)
        twin.self_attn.in_proj_bias.zero_()
        twin.self_attn.out_proj.weight.copy_(block.w_o.weight)
        twin.self_attn.out_proj.bias.zero_()
        for mine, its in ((block.w_1, twin.linear1), (block.w_2, twin.linear2),
                          (block.norm_attention, twin.norm1), (block.norm_ff, twin.norm2)):
            its.load_state_dict(mine.state_dict())
    h = torch.randn(3, 7, 16, dtype=torch.float64)
    assert torch.allclose(block(h), twin(h, src_mask=causal_mask(7).double()), atol=1e-12)


def test_attention_equals_its_weights_times_values(block):
    h = torch.randn(2, 6, 16, dtype=torch.float64)
    weights = block.with_weights(h)[1]
    _, _, v = block._heads(h)
    assert torch.allclose(block.w_o((weights @ v).transpose(1, 2).flatten(2)), block.attention(h),
                          atol=1e-12)
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert (weights.triu(1) == 0).all() and (weights.tril() > 0).sum() == 2 * 4 * 21


def test_positions_by_hand():
    p = sinusoidal_positions(50, 8)
    assert p[3, 4].item() == pytest.approx(math.sin(3 / 10000 ** (4 / 8)), abs=1e-6)
    assert p[3, 5].item() == pytest.approx(math.cos(3 / 10000 ** (4 / 8)), abs=1e-6)
    assert p[0].tolist() == [0, 1] * 4


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="n_heads=3"):
        TransformerBlock(16, n_heads=3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 60, 10**6])
def test_chunked_loss_equals_the_plain_one(monkeypatch, bias, chunk):
    monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", chunk)
    torch.manual_seed(1)
    leaves = [torch.randn(11, 5), torch.randn(17, 5), torch.randn(17) if bias else None]
    leaves = [None if x is None else x.double().requires_grad_() for x in leaves]
    targets = torch.randint(0, 17, (11,))
    given = [x for x in leaves if x is not None]
    values = []
    for loss in (losses.cross_entropy, losses.chunked_cross_entropy):
        value = loss(*leaves, targets)
        values.append((value, *torch.autograd.grad(value / 7, given)))
    for plain, chunked in zip(*values, strict=True):
        assert torch.allclose(plain, chunked, atol=1e-12) and plain.abs().max() > 1e-3
    assert torch.autograd.gradcheck(
        lambda *x: losses.chunked_cross_entropy(*x, *([] if bias else [None]), targets), given)


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = losses.chunked_cross_entropy(hidden, weight, None, torch.tensor([1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4) and torch.isfinite(weight.grad).all()


def test_half_precision_is_close():
    torch.manual_seed(2)
    hidden, weight, bias = torch.randn(9, 32), torch.randn(50, 32) * 0.2, torch.randn(50)
    targets = torch.randint(0, 50, (9,))
    grads = []
    for half in (False, True):
        w = weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = losses.chunked_cross_entropy(hidden, w, bias, targets)
        loss.backward()
        grads.append((loss.item(), w.grad))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=0.01)
    assert torch.allclose(grads[0][1], grads[1][1], atol=0.05)
    assert not torch.equal(grads[0][1], grads[1][1])


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_batches_hold_every_prediction_once(micro_batches):
    data = random_sequences(longest=14)
    found = []
    for batch in batches(data, np.arange(len(data)), 8, micro_batches, max_length=6):
        for items, real, places, targets in batch:
            after = np.zeros_like(items)
            after[real] = targets
            assert (data.items[places] == items[real]).all()
            for row, mask, next_ in zip(items, real, after, strict=True):
                found.append((*row[mask], -1, *next_[mask]))
    expected = []
    for u in range(len(data)):
        part = data[u][-7:]
        expected.append((*part[:-1], -1, *part[1:]))
    assert sorted(found) == sorted(expected)


def test_training_equals_a_plain_loop():
    data, held = random_sequences(), random_sequences(1)
    settings = TrainSettings(learning_rate=0.01, batch_size=8, max_epochs=2, seed=5)
    histories, models = [], []
    for micro_batches in (1, 4):
        torch.manual_seed(0)
        model = transformer(12, d_model=8, n_heads=2, dropout=0.0, max_length=9)
        s = TrainSettings(**{**settings.__dict__, "micro_batches": micro_batches})
        histories.append(fit(model, data, held, s))
        models.append(model)
    torch.manual_seed(0)
    model = transformer(12, d_model=8, n_heads=2, dropout=0.0, max_length=9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    for epoch in range(2):
        total, count = 0.0, 0
        order = np.random.default_rng((5, epoch)).permutation(len(data))
        for start in range(0, len(order), 8):
            losses_, n = 0.0, 0
            for u in order[start : start + 8]:
                s = torch.from_numpy(data[u].astype(np.int64))
                logits = model.output(model(s[None, :-1]))[0]
                losses_ = losses_ + F.cross_entropy(logits, s[1:], reduction="sum")
                n += len(s) - 1
            optimizer.zero_grad()
            (losses_ / n).backward()
            optimizer.step()
            total, count = total + losses_.item(), count + n
        for history in histories:
            assert history.train_loss[epoch] == pytest.approx(total / count, rel=1e-4)
    assert histories[0].validation_loss == pytest.approx(histories[1].validation_loss, rel=1e-4)


@pytest.mark.parametrize("build", [transformer, sasrec])  # the other shares a matrix
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, build):
    data, held = random_sequences(), random_sequences(1)
    settings = dict(learning_rate=0.01, batch_size=8, patience=99)
    results = []
    for stops in ((6,), (2, 3, 6)):
        for stop in stops:
            torch.manual_seed(0)
            model = build(12, d_model=8, n_heads=2, dropout=0.3, max_length=9)
            history = fit(model, data, held, TrainSettings(max_epochs=stop, **settings),
                          checkpoint=tmp_path / f"{len(stops)}.safetensors")
        results.append((history, model.state_dict()))
    (a, weights), (b, resumed) = results
    assert a.train_loss == b.train_loss and a.validation_loss == b.validation_loss
    assert len(set(a.train_loss)) == 6 and a.best_epoch == b.best_epoch
    assert all(torch.equal(weights[k], resumed[k]) for k in weights)


def test_early_stopping_rule_and_best_weights(monkeypatch):
    # Productive: 10.0, 9.0, 8.0. Not by 1 %: 7.95 (but the lowest), then worse.
    fake = iter([10.0, 9.0, 8.0, 7.95, 8.1, 8.2, 8.3])
    seen = []
    monkeypatch.setattr(training.SequenceTrainer, "validate", lambda self, _: (
        seen.append(self._weights()), next(fake))[1])
    model = transformer(12, d_model=8, n_heads=2, max_length=9)
    data = random_sequences()
    history = fit(model, data, data, TrainSettings(max_epochs=50, patience=3, batch_size=8))
    assert history.validation_loss == [10.0, 9.0, 8.0, 7.95, 8.1, 8.2, 8.3]
    assert history.best_epoch == 3
    assert torch.equal(model.state_dict()["output.weight"], seen[3]["output.weight"])
    assert not torch.equal(seen[3]["output.weight"], seen[6]["output.weight"])


def test_checkpoints_that_do_not_belong_are_refused(tmp_path):
    data, path = random_sequences(), tmp_path / "c.safetensors"
    settings = TrainSettings(max_epochs=1, batch_size=8)
    fit(transformer(12, d_model=8, n_heads=2, max_length=9), data, data, settings, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another run"):
        fit(transformer(12, d_model=16, n_heads=2, max_length=9), data, data, settings,
            checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        fit(transformer(12, d_model=8, n_heads=2, max_length=9), data, data, settings,
            checkpoint=path)


def test_a_diverging_run_stops_with_advice():
    model = transformer(12, d_model=8, n_heads=2, max_length=9)
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fit(model, random_sequences(), random_sequences(), TrainSettings(max_epochs=1))


def test_a_rule_of_the_last_two_items_is_learnt():
    """The next item is the sum of the last two: neither popularity nor one item can tell."""
    rng = np.random.default_rng(0)

    def walk():
        items = list(rng.integers(0, 7, 2))
        while len(items) < 20:
            items.append((items[-1] + items[-2] + 1) % 7)
        return np.array(items)

    data = sequences([walk() for _ in range(200)], 7)
    test = sequences([walk() for _ in range(60)], 7)
    neural = {"d_model": 32, "learning_rate": 3e-3, "batch_size": 32, "max_epochs": 25,
              "max_length": 20, "dropout": 0.0, "device": "cpu"}
    heads = {"n_heads": 4}
    hit = {}
    for label, kw in {
            "popularity": {}, "markov": {}, "transformer": neural | heads, "mamba": neural,
            "xlstm": neural | heads, "xlstm beck": neural | heads | {"form": "beck"},
            "xlstm slstm": neural | heads | {"slstm_at": (0, 1)}}.items():
        model = recommenders.create(label.split()[0], **kw).fit(data, test)
        hit[label] = metrics.hit_rate(evaluate(model, test, mask_seen=False).ranks, 1)
    assert max(hit.pop("popularity"), hit.pop("markov")) < 0.5 and min(hit.values()) > 0.9, hit


@pytest.mark.parametrize("name", recommenders.names())
def test_every_recommender_scores_each_history_alone(name):
    data = random_sequences(users=40)
    kw = {} if name in recommenders.names("classical", "content") else {
        "d_model": 8, "max_epochs": 1}
    kw = {"rank": 3} if name == "svd" else kw
    if recommenders.missing(name):
        pytest.skip(recommenders.missing(name))
    words = ("war love space ghost detective robot island school train music "
             "winter doctor").split()
    documents = pd.Series([f"a film about {w} and {words[i // 2]}" for i, w in enumerate(words)])
    model = recommenders.create(name, documents, **kw).fit(data, data)
    histories = data.histories()[:7]
    together = model.score(histories)
    assert together.shape == (7, 12) and together.dtype == np.float32
    for history, row in zip(histories, together, strict=True):
        assert model.score([history])[0] == pytest.approx(row, abs=1e-5)
    again = recommenders.create(name, documents, **kw).fit(data, data).score(histories)
    assert np.array_equal(together, again)


@pytest.mark.parametrize("name", recommenders.names("sequence"))
def test_a_long_history_counts_with_its_last_items(name):
    data = random_sequences()
    model = recommenders.create(name, d_model=8, max_epochs=1, max_length=5).fit(data, data)
    long = np.arange(12)
    assert np.array_equal(model.score([long]), model.score([long[-5:]]))
    assert not np.allclose(model.score([long]), model.score([long[:5]]))


@pytest.mark.parametrize("name", recommenders.names("sequence"))
def test_the_seed_decides(name):
    data = random_sequences()
    a, b = (recommenders.create(name, d_model=8, max_epochs=1, seed=s)
            .fit(data, data).score(data.histories()) for s in (0, 1))
    assert not np.allclose(a, b)


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(ValueError, match="There are popularity"):
        recommenders.create("oracle")
    with pytest.raises(ValueError, match="item-knn has no setting depth"):
        recommenders.create("item-knn", depth=3)
    with pytest.raises(ValueError, match="at least one item"):
        data = random_sequences()
        recommenders.create("transformer", d_model=8, n_heads=2, max_epochs=1).fit(
            data, data).score([np.array([], dtype=np.int32)])
