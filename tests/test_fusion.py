"""Early and late fusion: their equations by hand, what stays frozen, and what the user knows."""

import numpy as np
import pytest
import torch

from nbrec import metrics, recommenders
from nbrec.evaluate import evaluate
from nbrec.models.fusion import EarlyFusion, LateFusion
from nbrec.models.next_item import stack, transformer
from nbrec.sequences import Sequences

NEURAL = {"d_model": 16, "learning_rate": 0.01, "batch_size": 16, "max_epochs": 3}


def sequences(parts, n_items):
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(len(parts)), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


def random_sequences(seed=0, users=30, n_items=12):
    rng = np.random.default_rng(seed)
    return sequences([rng.permutation(n_items)[: rng.integers(3, 9)] for _ in range(users)],
                     n_items)


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def test_early_fusion_by_hand():
    torch.manual_seed(0)
    contexts = {"gat": torch.randn(5, 3), "minibert": 4 + torch.randn(5, 7)}
    fusion = EarlyFusion(contexts, 6).double().eval()
    items, e = torch.tensor([[4, 0], [2, 2]]), torch.randn(2, 2, 6, dtype=torch.float64)
    parts = [e.numpy()]
    for k, name in enumerate(contexts):
        x = contexts[name].double().numpy()[items]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        norm = fusion.norms[k]
        x = x * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        parts.append(linear(fusion.up[k], x))
    c = np.concatenate(parts, -1)
    z = np.maximum(linear(fusion.f1, c), 0)
    assert c.shape[-1] == 18 and z.shape[-1] == 12  # (n + 1) d, and two thirds of it
    expected = linear(fusion.f2, z)
    assert np.abs(fusion(e, items).detach().numpy() - expected).max() < 1e-12
    assert np.abs(expected).max() > 0.1
    assert EarlyFusion({"gat": torch.randn(5, 3)}, 6).f1.out_features == 8  # 4/3 d


def test_late_fusion_by_hand():
    torch.manual_seed(0)
    fusion = LateFusion(3, 4).double()
    h, user = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    u = linear(fusion.project, user.numpy())
    g = 1 / (1 + np.exp(-linear(fusion.gate, np.concatenate([h.numpy(), u], 1))))
    expected = g * h.numpy() + (1 - g) * u
    assert np.abs(fusion(h, user).detach().numpy() - expected).max() < 1e-12
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.fill_(50.0)  # an open gate lets the sequence through
    assert torch.allclose(fusion(h, user), h, atol=1e-12)
    assert (fusion(h, user) - torch.from_numpy(expected)).abs().max() > 0.1


def test_bad_contexts_are_refused():
    with pytest.raises(ValueError, match="no context"):
        EarlyFusion({}, 4)
    with pytest.raises(ValueError, match="'gat'.*1 values that are not finite"):
        EarlyFusion({"gat": torch.tensor([[1.0, float("nan")]])}, 4)
    one, other = torch.randn(3, 2), torch.randn(3, 2)
    assert EarlyFusion({"gat": one}, 4).digest() != EarlyFusion({"gat": other}, 4).digest()


class Fixed:
    """A context of given vectors."""

    seconds, curve = 0.0, None

    def __init__(self, vectors):
        self.table, self.catalogue = vectors, np.arange(len(vectors))

    def item_vectors(self):
        return self.table

    def describe(self):
        return {}


class Told(Fixed):
    """Answers for users as it was told."""

    def __init__(self, vectors, users):
        super().__init__(vectors)
        self.users = users

    def user_vectors(self, histories, fold_in=True):
        return self.users(torch.ones(len(histories), 3))


@pytest.mark.parametrize("items, users, message", [
    (lambda v: v[:5], lambda u: u, r"item_vectors gave Tensor of shape \(5, 4\).*\(12, d\)"),
    (lambda v: torch.cat([v, v]), lambda u: u, r"item_vectors gave Tensor of shape \(24, 4\)"),
    (lambda v: v.numpy(), lambda u: u, r"item_vectors gave ndarray of shape \(12, 4\)"),
    (lambda v: v / 0, lambda u: u, "item_vectors gave 48 values that are not finite"),
    (lambda v: v, lambda u: u[:-1], r"user_vectors gave Tensor of shape \(0, 3\).*\(1, d\)"),
    (lambda v: v, lambda u: u * float("nan"), "user_vectors gave 3 values that are not finite"),
    (lambda v: v, lambda u: u.numpy(), "user_vectors gave ndarray"),
    (lambda v: v, lambda u: u[:, 0], r"user_vectors gave Tensor of shape \(1,\)"),
])
def test_what_a_context_answers_is_checked(items, users, message):
    class Context(Told):
        def item_vectors(self):
            return items(self.table)

    model = recommenders.create("transformer+gat+gat-user", n_heads=2, **NEURAL,
                                contexts={"gat": Context(torch.ones(12, 4), users)})
    with pytest.raises(ValueError, match=f"context 'gat': {message}"):
        model.fit(random_sequences())


def test_vectors_of_other_types_are_joined_as_float32():
    made = []
    for kind in (torch.float32, torch.float64, torch.int64):
        class Context(Told):
            def item_vectors(self, kind=kind):
                return self.table.to(kind)

        context = Context(torch.arange(48).reshape(12, 4), lambda u, kind=kind: u.to(kind))
        made.append(recommenders.create("transformer+gat+gat-user", n_heads=2, **NEURAL,
                                        contexts={"gat": context}).fit(random_sequences()))
    scores = [model.score([np.array([1, 2])]) for model in made]
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize("backbone", [*recommenders.names("sequence"),
                                      "attention-mamba-mlstm-slstm"])
def test_frozen_vectors_stay_and_count(backbone):
    data, table = random_sequences(), torch.randn(12, 5)
    kw = NEURAL if backbone.startswith("mamba") else NEURAL | {"n_heads": 2}
    fitted = recommenders.create(f"{backbone}+gat", contexts={"gat": Fixed(table)}, **kw)
    fitted.fit(data, data)
    assert torch.equal(fitted.model.early.frozen_gat, table)
    assert "early.frozen_gat" not in dict(fitted.model.named_parameters())
    scores = fitted.score(data.histories())
    fitted.model.early.frozen_gat.copy_(table.flip(0))
    assert np.abs(fitted.score(data.histories()) - scores).max() > 1e-3
    # one item at a time: the same as all at once
    items = torch.from_numpy(data[0][:-1].astype(np.int64))[None]
    state, steps = None, []
    for t in range(items.shape[1]):
        h, state = fitted.model.step(items[:, t], state)
        steps.append(h)
    assert torch.allclose(torch.stack(steps, 1), fitted.model(items), atol=1e-4)


def learnable(users, seed, n_items=20):
    """The next item is a function of the last two: popularity cannot know it."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(users):
        s = list(rng.integers(0, n_items, 2))
        while len(s) < 12:
            s.append((s[-1] + 3 * s[-2] + 1) % n_items)
        parts.append(np.array(s))
    return sequences(parts, n_items)


@pytest.mark.parametrize("context", ["zeros", "noise"])
def test_a_context_without_information_does_no_harm(context):
    train, held, test = learnable(400, 0), learnable(40, 1), learnable(100, 2)
    table = torch.zeros(20, 4) if context == "zeros" else torch.randn(20, 4)
    kw = {"d_model": 32, "n_heads": 2, "learning_rate": 3e-3, "batch_size": 32,
          "max_epochs": 40, "patience": 40, "dropout": 0.0}
    hit = {}
    for name in ("transformer", "transformer+gat"):
        contexts = {"gat": Fixed(table)} if name == "transformer+gat" else {}
        model = recommenders.create(name, contexts=contexts, **kw).fit(train, held)
        hit[name] = metrics.hit_rate(evaluate(model, test, mask_seen=False).ranks, 1)
    assert min(hit.values()) > 0.9, hit


GRAPH = {"max_epochs": 2, "seed": 0}


def test_user_vectors_after_each_item_are_those_of_a_newcomer():
    data = random_sequences()
    fitted = recommenders.create("transformer+lightgcn+lightgcn-user", n_heads=2, **NEURAL)
    fitted.contexts["lightgcn"] = context = recommenders.create("lightgcn", **GRAPH)
    fitted.fit(data, data)
    vectors = fitted._user_vectors(data, train=True)
    assert vectors.shape == (len(data.items), 64)
    for u in (0, 7):
        for t in range(len(data[u])):
            alone = context.user_vectors([data[u][: t + 1]], fold_in=True)[0].numpy()
            assert vectors[data.offsets[u] + t] == pytest.approx(alone, abs=1e-6)
    assert np.abs(vectors).max() > 1e-3
    assert fitted.score(data.histories()).shape == (30, 12)


def test_the_literal_user_vector_knows_the_future_and_the_causal_one_does_not():
    data = random_sequences()
    changed = sequences([np.r_[data[u][:2], data[u][2:][::-1]] if u else
                         np.r_[data[0][:2], np.setdiff1d(np.arange(12), data[0])[:3]]
                         for u in range(len(data))], 12)  # user 0 goes on otherwise

    def early(form):
        fitted = recommenders.create(f"transformer+lightgcn{form}", n_heads=2, **NEURAL)
        fitted.contexts["lightgcn"] = recommenders.create("lightgcn", **GRAPH).fit(data, data)
        return [fitted._user_vectors(part, train=True)[:2] for part in (data, changed)]

    causal, literal = early("-user"), early("-user-literal")
    assert np.array_equal(*causal)
    assert np.abs(literal[0] - literal[1]).max() > 1e-3
    assert np.array_equal(literal[0][0], literal[0][1])  # one vector for the whole history


def test_late_fusion_trains_and_scores_with_the_vector_of_each_position():
    """The gate's gradient must be that of a loop over positions, each with its own vector."""
    from nbrec.losses import cross_entropy
    from nbrec.train import SequenceTrainer, TrainSettings, batches

    torch.manual_seed(0)
    data = random_sequences(users=9)
    model = transformer(12, d_model=8, n_layers=1, n_heads=2, dropout=0.0)
    model.late = LateFusion(3, 8)
    users = torch.randn(len(data.items), 3).double().numpy()
    trainer = SequenceTrainer(model.double(), TrainSettings(), users=(users, users))
    total = 0.0
    for batch in batches(data, np.arange(9), 9, 3, 90):
        total = total + sum(trainer.loss(part) for part in batch)
    expected = 0.0
    for u in range(9):
        s = torch.from_numpy(data[u].astype(np.int64))
        h = model(s[None, :-1])[0]
        for t in range(len(s) - 1):
            own = torch.from_numpy(users[data.offsets[u] + t]).double()
            fused = model.late(h[t], own)[None]
            expected = expected + cross_entropy(fused, model.output.weight, model.output.bias,
                                                s[t + 1 : t + 2])
    assert total.item() == pytest.approx(expected.item(), rel=1e-10)
    found, wanted = (torch.autograd.grad(loss, model.late.gate.weight)[0]
                     for loss in (total, expected))
    assert torch.allclose(found, wanted, atol=1e-10) and wanted.abs().max() > 1e-3


def test_a_late_fusion_without_users_is_refused():
    from nbrec.train import fit

    model = transformer(12, d_model=8, n_layers=1, n_heads=2)
    model.late = LateFusion(3, 8)
    with pytest.raises(ValueError, match="late fusion needs the vectors of the users"):
        fit(model, random_sequences(), random_sequences())


def test_stacks_have_the_blocks_of_their_name():
    model = stack(12, ("mamba", "attention", "mlstm"), d_model=8, n_heads=2)
    assert [type(b).__name__ for b in model.blocks] == ["MambaBlock", "TransformerBlock",
                                                        "MLSTMBlock"]
    assert model.positions is None  # the Mamba block below tells the attention the order
    assert stack(12, ("attention", "mamba"), d_model=8, n_heads=2).positions is not None
    with pytest.raises(ValueError, match="'lstm'"):
        stack(12, ("mamba", "lstm"), d_model=8)
    order = [recommenders.create(name, n_heads=2, **NEURAL).fit(
        random_sequences(), random_sequences()).curve.train_loss[-1]
        for name in ("attention-mamba", "mamba-attention")]
    assert order[0] != order[1]


def test_the_dropout_that_is_asked_for_is_that_of_the_fusion():
    def made(**settings):
        model = recommenders.create("transformer+lightgcn", d_model=8, n_heads=2, max_epochs=1,
                                    device="cpu", **settings)
        return model.fit(random_sequences(), random_sequences(1)).model

    assert made(dropout=0.3).early.dropout.p == 0.3
    both = made(dropout=0.3, fusion_dropout=0.0)
    assert both.early.dropout.p == 0.0 and both.blocks[0].dropout.p == 0.3


def test_controls_keep_the_layers_and_take_the_knowledge():
    context = recommenders.create("lightgcn", d_model=8, max_epochs=1).fit(
        random_sequences(), random_sequences(1))

    def frozen(**settings):
        model = recommenders.create("transformer+lightgcn", contexts={"lightgcn": context},
                                    d_model=8, n_heads=2, max_epochs=1, device="cpu", **settings)
        model.fit(random_sequences(), random_sequences(1))
        return model.model.early.frozen_lightgcn, model

    own, model = frozen()
    assert "control" not in model.describe() and torch.equal(own, context.item_vectors())
    zeros, model = frozen(control="zeros")
    assert zeros.shape == own.shape and not zeros.any() and model.describe()["control"] == "zeros"
    shuffled, _ = frozen(control="shuffled")
    assert torch.equal(shuffled.sort(0).values, own.sort(0).values)
    assert not torch.equal(shuffled, own)
    with pytest.raises(ValueError, match="control='noise'"):
        recommenders.create("transformer+lightgcn", control="noise")


def test_early_fusion_drops_behind_its_relu_and_nowhere_else(monkeypatch):
    torch.manual_seed(0)
    fusion = EarlyFusion({"gat": torch.randn(5, 3)}, 6)
    assert fusion.dropout.p == 0.1
    items, e = torch.tensor([4, 0, 2]), torch.randn(3, 6)
    calls = []
    monkeypatch.setattr(fusion.dropout, "forward", lambda z: calls.append(z) or 2 * z)
    found = fusion(e, items)
    (z,) = calls
    assert z.min() == 0 < z.max() and z.shape == (3, 8)
    assert torch.allclose(found, fusion.f2(2 * z))


def test_a_digest_knows_names_and_vectors():
    one, other = torch.randn(3, 2), torch.randn(3, 2)
    told = [EarlyFusion(contexts, 4).digest() for contexts in (
        {"gat": one}, {"gcn": one}, {"gat": other}, {"gat": one, "gcn": other},
        {"gat": other, "gcn": one})]
    assert len(set(told)) == 5 and told[0] == EarlyFusion({"gat": one.clone()}, 8).digest()
    with pytest.raises(ValueError, match="context 'gat'"):
        EarlyFusion({"gat": torch.ones(3)}, 4)
    assert torch.equal(EarlyFusion({"gat": one.double()}, 4).frozen_gat, one)
    assert EarlyFusion({"gat": one}, 4).frozen_gat.data_ptr() != one.data_ptr()


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_of_the_fusion_that_is_none_is_refused(dropout):
    with pytest.raises(ValueError, match=f"dropout={dropout}: expected a number"):
        EarlyFusion({"gat": torch.ones(3, 2)}, 4, dropout)


def test_what_is_frozen_asks_for_no_gradient():
    learned = torch.randn(3, 2, requires_grad=True)
    assert not EarlyFusion({"gat": learned}, 4).frozen_gat.requires_grad
