"""Training: the same weights as a plain loop, and clear words where it cannot go on."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from nbrec import metrics
from nbrec.models.fusion import LateFusion
from nbrec.models.next_item import mamba, transformer, xlstm
from nbrec.sequences import Sequences
from nbrec.train import SequenceTrainer, TrainSettings, checkpoint, fit, loop, sequences


def data(seed=0, users=20, n_items=12, shortest=2, longest=9):
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, n_items, rng.integers(shortest, longest)) for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


def model(n_heads=2, dropout=0.0, n_items=12, max_length=9):
    torch.manual_seed(0)
    return transformer(n_items, d_model=8, n_heads=n_heads, dropout=dropout,
                       max_length=max_length)


def losses_of(net, sequences):
    """Summed loss and number of predictions, one user at a time."""
    total, n = 0.0, 0
    for u in range(len(sequences)):
        s = torch.from_numpy(sequences[u].astype(np.int64))
        total = total + F.cross_entropy(net.output(net(s[None, :-1]))[0], s[1:], reduction="sum")
        n += len(s) - 1
    return total, n


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_weights_and_validation_loss_equal_a_plain_loop_in_float64(micro_batches):
    train, held = data(), data(1)
    settings = TrainSettings(learning_rate=0.01, weight_decay=0.1, batch_size=8, max_epochs=3,
                             micro_batches=micro_batches, seed=5)
    fast = model().double()
    history = fit(fast, train, held, settings)
    plain = model().double()
    start = {k: v.clone() for k, v in plain.state_dict().items()}
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    validation, weights = [], []
    for epoch in range(3):
        order = np.random.default_rng((5, epoch)).permutation(len(train))
        for begin in range(0, len(order), 8):
            total, n = losses_of(plain, train.select(order[begin : begin + 8]))
            optimizer.zero_grad()
            (total / n).backward()
            optimizer.step()
        with torch.no_grad():
            total, n = losses_of(plain, held)
        validation.append(total.item() / n)
        weights.append({k: v.clone() for k, v in plain.state_dict().items()})
    assert history.validation_loss == pytest.approx(validation, rel=1e-10)
    best = weights[history.best_epoch]
    assert history.best_epoch == int(np.argmin(validation))
    for name, value in fast.state_dict().items():
        assert torch.allclose(value, best[name], atol=1e-9), name
        assert not torch.allclose(value, start[name], atol=1e-3), name


@pytest.mark.parametrize("change", [
    {"train": data(7)}, {"held": data(8)}, {"n_heads": 4}, {"dropout": 0.5},
    {"learning_rate": 0.5}, {"seed": 9},
])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    """Above all that of another fold: its training users may be tested here."""
    def run(train=data(), held=data(1), n_heads=2, dropout=0.1, **settings):  # noqa: B008
        return fit(model(n_heads, dropout), train, held,
                   TrainSettings(batch_size=8, **{"max_epochs": 1} | settings),
                   checkpoint=tmp_path / "c.safetensors")

    first = run()
    with pytest.raises(ValueError, match="belongs to another run"):
        run(**change)
    on = run(max_epochs=2, micro_batches=2, patience=9)  # how long and how packed may change
    assert on.train_loss[:1] == first.train_loss and len(on.train_loss) == 2


def test_a_refused_checkpoint_says_what_differs(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(model(), data(), data(), TrainSettings(max_epochs=1), checkpoint=path)
    with pytest.raises(ValueError) as error:
        fit(model(), data(), data(), TrainSettings(max_epochs=1, batch_size=7), checkpoint=path)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == ["  batch_size: it has 128, asked for 7"]


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    fit(model(), data(), data(1), TrainSettings(max_epochs=1, batch_size=8), checkpoint=path)
    before = path.read_bytes()

    def killed(tensors, target, metadata):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), data(), data(1), TrainSettings(max_epochs=2, batch_size=8), checkpoint=path)
    assert path.read_bytes() == before


def test_a_finished_run_gives_its_best_weights_again(tmp_path):
    path, settings = tmp_path / "c.safetensors", TrainSettings(
        learning_rate=0.1, max_epochs=30, patience=1, batch_size=8)
    first, again = model(), model()
    a = fit(first, data(), data(1), settings, checkpoint=path)
    assert a.best_epoch < len(a.train_loss) - 1 < 29  # stopped early, after its best epoch
    b = fit(again, data(), data(1), settings, checkpoint=path)
    assert a == b
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())


def test_data_that_cannot_train_are_refused():
    good = data()
    for wrong, message in ((good.select([]), "has 0 sequences"),
                           (data(shortest=1, longest=2), "the shortest of 1 items"),
                           (data(n_items=13), "knows 12 items")):
        for pair, part in (((wrong, good), "training"), ((good, wrong), "validation")):
            with pytest.raises(ValueError, match=message) as error:
                fit(model(), *pair)
            assert part in str(error.value)


@pytest.mark.parametrize("name", ["batch_size", "max_epochs", "micro_batches"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0: expected a whole number, 1 or more"):
        TrainSettings(**{name: 0})


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="precision='fp8'"):
        fit(model(), data(), data(), TrainSettings(precision="fp8"))


def test_a_validation_loss_that_is_not_a_number_stops_the_run():
    net, train, held = model(n_items=13), data(n_items=13), data(1, n_items=13)
    held.items[:] = 12  # an item that no training user has
    train.items[train.items == 12] = 0
    with torch.no_grad():
        net.embedding.weight[12] = float("nan")  # an input in validation alone
    with pytest.raises(FloatingPointError, match="validation loss of epoch 1 is nan"):
        fit(net, train, held, TrainSettings(max_epochs=2))


@pytest.mark.parametrize("build", [transformer, mamba, xlstm])
def test_bf16_trains_almost_like_fp32(build):
    ends = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        net = build(12, d_model=8, dropout=0.0, max_length=9)
        settings = TrainSettings(learning_rate=0.01, max_epochs=6, batch_size=8,
                                 precision=precision)
        ends.append(fit(net, data(), data(1), settings).train_loss)
    assert ends[0] == pytest.approx(ends[1], rel=0.02) and ends[0] != ends[1]
    assert ends[0][-1] < 0.97 * ends[0][0]


def test_the_bar_shows_the_loss_within_an_epoch(monkeypatch, capsys):
    clock = iter(range(0, 10**6, 2))  # two seconds pass between two looks
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    fit(model(), data(), data(1), TrainSettings(max_epochs=1, batch_size=5), progress=True)
    shown = [line for line in capsys.readouterr().err.split("\r") if "0/1" in line]
    assert sum("epoch=1" in line and "loss=" in line for line in shown) >= 4


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    net = model(dropout=0.3)
    torch.manual_seed(3)
    fit(net, data(), data(1), TrainSettings(max_epochs=1))
    assert torch.equal(torch.rand(2), expected)


def test_every_epoch_drops_other_units():
    """One user and no learning: all that can change between epochs is the dropout."""
    one, still = data(users=1, shortest=8), TrainSettings(learning_rate=1e-30, max_epochs=3)
    assert len(set(fit(model(dropout=0.5), one, one, still).train_loss)) == 3
    assert len(set(fit(model(dropout=0.0), one, one, still).train_loss)) == 1


@pytest.mark.parametrize("stop_on", ["ndcg@10", "ndcg@10 with seen"])
def test_stopping_on_the_ranking_of_the_last_items(stop_on):
    train, held = data(users=40), data(1)
    settings = TrainSettings(learning_rate=0.03, batch_size=8, max_epochs=6, patience=9,
                             min_improvement=0.0, stop_on=stop_on)
    net = model()
    history = fit(net, train, held, settings)
    gains = []
    for u in range(len(held)):
        scores = net.score(torch.from_numpy(held[u][None, :-1].astype(np.int64)),
                           torch.tensor([len(held[u]) - 1]))[0]
        target = int(held[u][-1])
        seen = held[u][:-1] if stop_on == "ndcg@10" else []
        others = [i for i in range(12) if i != target and i not in seen]
        rank = 1 + sum(float(scores[i]) >= float(scores[target]) for i in others)
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0)
    best = min(history.validation_loss)
    assert history.validation_loss[history.best_epoch] == best
    assert best == pytest.approx(1 - np.mean(gains), rel=1e-9) and 0 < best < 1
    assert max(history.validation_loss) > best  # else any epoch would have done
    with pytest.raises(ValueError, match="stop_on='accuracy'"):
        TrainSettings(stop_on="accuracy")
    assert "stop_on" not in TrainSettings().described()
    assert settings.described()["stop_on"] == stop_on


def test_every_item_of_a_long_sequence_can_be_a_target():
    """One batch of all windows: the loss of the first epoch is that of every item but the first."""
    train = data(users=5, longest=12, shortest=9)
    settings = {"learning_rate": 1e-30, "max_epochs": 1}
    net = model(max_length=4)
    total, n = 0.0, 0
    with torch.no_grad():
        for window, known in zip(*train.windows(4), strict=True):
            items = torch.from_numpy(window.astype(np.int64))
            logits = net.output(net(items[None, :-1]))[0, known:]
            total += float(F.cross_entropy(logits, items[known + 1 :], reduction="sum"))
            n += len(logits)
    all_of_them = fit(net, train, train, TrainSettings(every_item=True, **settings))
    assert n == len(train.items) - 5
    assert all_of_them.train_loss[0] == pytest.approx(total / n, rel=1e-6)
    last_ones = fit(model(max_length=4), train, train, TrainSettings(**settings))
    assert last_ones.train_loss[0] != pytest.approx(total / n, rel=1e-3)
    assert "every_item" not in TrainSettings().described()
    assert TrainSettings(every_item=True).described()["every_item"] is True


def test_windows_and_vectors_of_users_do_not_go_together():
    train, net = data(), model()
    net.late = LateFusion(3, 8)
    users = (np.zeros((len(train.items), 3), np.float32),) * 2
    with pytest.raises(ValueError, match="every_item=True: the vectors of the users"):
        fit(net, train, train, TrainSettings(every_item=True), users=users)


@pytest.mark.parametrize("stop_on", ["ndcg@10", "ndcg@10 with seen"])
def test_early_stopping_does_not_see_the_target_in_the_users_vector(stop_on):
    """The vector after the last item of the history is asked for, not that after the target."""
    held, rng = data(1), np.random.default_rng(0)
    net = model().eval()
    net.late = LateFusion(3, 8)
    users = [rng.normal(size=(n, 3)).astype(np.float32) * 9 for n in (5, len(held.items))]
    trainer = SequenceTrainer(net, TrainSettings(stop_on=stop_on), users=tuple(users))

    def loss(back):
        scores = []
        for u in range(len(held)):
            history = torch.from_numpy(held[u][:-1].astype(np.int64))
            vector = torch.from_numpy(users[1][held.offsets[u + 1] - back])
            with torch.no_grad():
                scores.append(net.output(net.late(net(history[None])[0, -1], vector)).numpy())
        seen = held.histories() if stop_on == "ndcg@10" else None
        ranks = metrics.target_ranks(np.array(scores), held.targets(), seen)
        return 1 - metrics.ndcg(ranks, 10)

    assert trainer.validate(held) == pytest.approx(loss(back=2), rel=1e-9)
    assert abs(loss(back=2) - loss(back=1)) > 1e-5


def test_training_and_validation_have_the_vectors_of_their_own_users():
    train, held, rng = data(), data(1), np.random.default_rng(0)
    net = model()
    net.late = LateFusion(3, 8)
    users = tuple(rng.normal(size=(len(d.items), 3)).astype(np.float32) for d in (train, held))
    history = fit(net, train, held, TrainSettings(learning_rate=1e-9, max_epochs=1), users=users)
    for part, vectors, found in ((train, users[0], history.train_loss),
                                 (held, users[1], history.validation_loss)):
        total, n = 0.0, 0
        for u in range(len(part)):
            s, first = torch.from_numpy(part[u].astype(np.int64)), part.offsets[u]
            own = torch.from_numpy(vectors[first : first + len(s) - 1])
            with torch.no_grad():
                logits = net.output(net.late(net(s[None, :-1])[0], own))
                total += float(F.cross_entropy(logits, s[1:], reduction="sum"))
            n += len(s) - 1
        assert found == [pytest.approx(total / n, rel=1e-5)]


def test_an_epoch_on_the_threshold_is_not_productive_and_the_first_of_equals_is_kept():
    trainer = SequenceTrainer(model(), TrainSettings(min_improvement=0.5))
    kept = []
    for loss in (8.0, 4.0, 3.0, 3.0, 2.0, 1.0):  # 4 is not below half of 8, but 3 is; 1 is, of 3
        with torch.no_grad():
            trainer.model.output.bias += 1
        trainer.record(10 * loss, loss, 0.5)
        kept.append((trainer.curve.best_epoch, trainer.waited, trainer.reference))
    assert kept == [(0, 0, 8.0), (1, 1, 8.0), (2, 0, 3.0), (2, 1, 3.0), (4, 2, 3.0),
                    (5, 0, 1.0)]
    assert trainer.curve.validation_loss == [8.0, 4.0, 3.0, 3.0, 2.0, 1.0]
    assert trainer.curve.train_loss == [80.0, 40.0, 30.0, 30.0, 20.0, 10.0]
    assert trainer.curve.seconds == [0.5] * 6


def test_equal_losses_keep_the_first_weights():
    trainer = SequenceTrainer(model(), TrainSettings())
    for bias in (1, 2, 3):
        with torch.no_grad():
            trainer.model.output.bias.fill_(bias)
        trainer.record(1.0, 2.0, 0.0)
    trainer.restore_best()
    assert (trainer.model.output.bias == 1).all() and not trainer.model.training


@pytest.mark.parametrize("patience", [0, 2])
def test_training_stops_when_more_than_patience_epochs_were_unproductive(monkeypatch, patience):
    monkeypatch.setattr(SequenceTrainer, "validate", lambda self, _: 1.0)
    history = fit(model(), data(), data(1), TrainSettings(max_epochs=9, patience=patience))
    assert len(history.seconds) == 1 + patience + 1


def test_defaults_of_training_are_those_of_the_thesis():
    """Section 4.1; the batch size, decay and micro-batches are ours."""
    found = {f.name: f.default for f in fields(TrainSettings)}
    assert found == {"learning_rate": 1e-4, "weight_decay": 0.01, "batch_size": 128,
                     "max_epochs": 200, "patience": 5, "min_improvement": 0.01, "stop_on": "loss",
                     "every_item": False, "micro_batches": 4, "precision": "auto", "device": "auto",
                     "seed": 0}


# --- going on elsewhere, and half precision ------------------------------------------------------


def half(precision, **more):
    return TrainSettings(**{"learning_rate": 0.01, "batch_size": 8, "max_epochs": 2,
                            "device": "cpu", "precision": precision} | more)


@pytest.mark.parametrize("first, then", [
    ("fp32", "fp16"), ("bf16", "fp16"), ("fp16", "bf16"), ("fp16", "fp32"), ("fp16", "fp16")])
def test_a_run_goes_on_in_another_precision_and_says_so(first, then, tmp_path, caplog):
    path = tmp_path / "run.safetensors"
    fit(model(), data(), data(1), half(first), checkpoint=path)
    history = fit(model(), data(), data(1), half(then, max_epochs=3), checkpoint=path)
    assert len(history.train_loss) == 3 and history.train_loss[-1] < history.train_loss[0]
    said = f"was begun in {first} and goes on in {then}"
    assert (said in caplog.text) == (first != then)


def test_where_there_is_a_scaler_its_state_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    trainer = SequenceTrainer(model(), half("fp16"))
    trainer.scaler.scale(torch.ones(1))  # it begins with its first loss
    trainer.scaler.update(512.0)
    trainer.record(1.0, 1.0, 1.0)
    checkpoint.save(trainer, path)
    other = SequenceTrainer(model(), half("fp16"))
    first = other.scaler.get_scale()
    checkpoint.load(other, path)
    assert other.scaler.get_scale() == 512.0 != first


def test_a_batch_that_the_scaler_skips_does_not_end_the_run(monkeypatch):
    calls = []

    def sometimes(hidden, weight, bias, targets):
        calls.append(len(targets))
        loss = F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="sum")
        return loss * float("nan") if len(calls) == 1 else loss

    monkeypatch.setattr(sequences, "chunked_cross_entropy", sometimes)
    net, settings = model(), half("fp16", max_epochs=1, micro_batches=1)
    history = fit(net, data(), data(1), settings)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    # The mean over the batches that counted; about log 12 = 2.5, not more and not less.
    assert 2.0 < history.train_loss[0] < 3.0
    calls.clear()
    with pytest.raises(FloatingPointError, match="training loss of epoch 1 is nan"):
        fit(model(), data(), data(1), half("bf16", max_epochs=1, micro_batches=1))


def test_an_epoch_without_one_finite_batch_ends_the_run(monkeypatch):
    monkeypatch.setattr(sequences, "chunked_cross_entropy",
                        lambda h, w, b, t: h.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="training loss of epoch 1 is nan"):
        fit(model(), data(), data(1), half("fp16", max_epochs=1))


def test_the_precision_that_is_used_is_described_and_not_the_device(monkeypatch):
    assert TrainSettings().described()["precision"] == "fp32"  # on this processor
    assert "device" not in TrainSettings(device="cpu").described()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert TrainSettings().described()["precision"] == expected
        assert TrainSettings(device="cpu").described()["precision"] == "fp32"


def test_catalogues_that_differ_are_refused_with_the_first_place():
    train, held = data(), data(1)
    other = replace(held, catalogue=np.array([*range(7), 70, 80, *range(90, 93)]))
    with pytest.raises(ValueError, match="index 7 is movieId 7 in the training and 70 in the val"):
        fit(model(), train, other)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda': torch finds no GPU here"):
        TrainSettings(device="cuda")
    assert TrainSettings().resolved_device() == TrainSettings(device="cpu").resolved_device()


def test_epochs_take_the_time_they_take_and_the_bar_waits_a_second(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    step, validate = SequenceTrainer.step, SequenceTrainer.validate

    def slow(self, batch):
        now[0] += 0.25
        return step(self, batch)

    def validated(self, held):
        now[0] += 5
        return validate(self, held)

    monkeypatch.setattr(SequenceTrainer, "step", slow)
    monkeypatch.setattr(SequenceTrainer, "validate", validated)
    settings = TrainSettings(max_epochs=2, batch_size=2)  # ten steps, two and a half seconds
    history = fit(model(), data(), data(1), settings, progress=True)
    assert history.seconds == [7.5, 7.5]
    shown = {line.split("epoch=")[1] for line in capsys.readouterr().err.split("\r")
             if "loss=" in line and "epoch=" in line}
    assert len(shown) == 2 * 2  # after 1.25 and 2.5 seconds of each epoch


@pytest.mark.parametrize("name, value", [
    ("learning_rate", 0.0), ("weight_decay", -0.1), ("batch_size", 0), ("max_epochs", 1.5),
    ("patience", -1), ("min_improvement", -0.01), ("min_improvement", 1.0), ("micro_batches", 0),
    ("stop_on", "hr"), ("every_item", 2), ("precision", "half"), ("device", "tpu"), ("seed", -1)])
def test_every_setting_of_the_training_is_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected"):
        TrainSettings(**{name: value})


# --- checkpoints that cannot be used -------------------------------------------------------------


def changed(path, change):
    """Rewrite a checkpoint after ``change(tensors, meta)``."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["run"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    meta = change(tensors, meta) or meta
    save_file(tensors, path, metadata={"run": json.dumps(meta)})


def without(prefix):
    def change(tensors, meta):
        for key in [k for k in tensors if k.startswith(prefix)]:
            del tensors[key]
    return change


def setting(key, value):
    return lambda tensors, meta: meta | {key: value}


def reshaped(tensors, meta):
    tensors["optimizer/0/exp_avg"] = torch.zeros(1)


DAMAGES = {
    "no optimiser": without("optimizer/"), "one parameter's state": without("optimizer/0/"),
    "one step": without("optimizer/1/step"), "no best": without("best/"),
    "a weight": without("model/output.weight"), "a shape": reshaped,
    "empty history": setting("history", {}), "no history": setting("history", None),
    "no settings": setting("settings", None), "a list of settings": setting("settings", []),
    "no waiting": setting("waited", None), "no reference": setting("reference", float("nan")),
    "words": setting("optimizer", ["x"]), "another parameter": setting("optimizer", [99]),
    "a list": lambda tensors, meta: [1], "a number": lambda tensors, meta: 5}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_nothing_is_changed(change, tmp_path):
    path = tmp_path / "run.safetensors"
    fit(model(), data(), data(1), half("fp32"), checkpoint=path)
    changed(path, change)
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match="run.safetensors is not a whole checkpoint.*delete it"):
        fit(net, data(), data(1), half("fp32", max_epochs=3), checkpoint=path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_place_of_a_checkpoint_is_asked_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(SequenceTrainer, "train_epoch", lambda *a: pytest.fail("it has trained"))
    for place, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "x", "cannot take")):
        with pytest.raises(ValueError, match=message):
            fit(model(), data(), data(1), half("fp32"), checkpoint=place)
