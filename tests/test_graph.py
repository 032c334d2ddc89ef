"""Graph models against dense loops, torch-geometric and hand-worked fractions; no leak; fold-in."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from twins import assert_equal

from nbrec import experiment, recommenders
from nbrec import train as training
from nbrec.data import movielens
from nbrec.evaluate import evaluate
from nbrec.metrics import hit_rate, ndcg, target_ranks
from nbrec.models.graph import Graph
from nbrec.models.graph_layers import GATLayer, GCNLayer, LightGCNLayer, gat, gcn, lightgcn
from nbrec.profiles import PROFILES
from nbrec.sequences import Sequences
from nbrec.train import TrainSettings, fit_graph, sample_negatives

HISTORIES = [np.array([0, 1, 2]), np.array([1]), np.array([2, 0])]  # nobody has seen film 3
V = 4


def neighbours(graph, self_loops):
    dense = graph.rows.toarray() + np.eye(graph.n_nodes) * self_loops
    return [np.flatnonzero(row) for row in dense]


def plain(layer, h, graph):
    """Each layer's equation, node by node."""
    if isinstance(layer, LightGCNLayer):
        n = neighbours(graph, 0)
        return torch.stack([sum((h[j] / math.sqrt(len(n[i]) * len(n[j])) for j in n[i]),
                                torch.zeros_like(h[0])) for i in range(len(h))])
    n = neighbours(graph, 1)
    z = h @ layer.weight.weight.T
    if isinstance(layer, GCNLayer):
        return torch.stack([sum(z[j] / math.sqrt(len(n[i]) * len(n[j])) for j in n[i])
                            for i in range(len(h))])
    heads = z.reshape(len(h), layer.n_heads, -1)
    rows = []
    for i in range(len(h)):
        parts = []
        for k in range(layer.n_heads):
            e = torch.stack([F.leaky_relu(layer.receiver[k] @ heads[i, k]
                                          + layer.sender[k] @ heads[j, k], 0.2) for j in n[i]])
            parts.append(torch.softmax(e, 0) @ heads[n[i], k])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


LAYERS = {"lightgcn": LightGCNLayer, "gcn": lambda: GCNLayer(6), "gat": lambda: GATLayer(6, 3)}


def values_and_gradients(function, layer, h, graph):
    y = function(h, graph)
    torch.manual_seed(9)
    weights = torch.randn(y.shape).to(y)
    return [y, *torch.autograd.grad((y * weights).sum(), [h, *layer.parameters()])]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("seed", range(3))
def test_layers_equal_their_equations_in_values_and_gradients(name, seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    histories = HISTORIES if seed == 0 else [
        rng.choice(V + 4, rng.integers(1, 6), replace=False) for _ in range(7)]
    graph = Graph(histories, V if seed == 0 else V + 4)
    layer = LAYERS[name]().double()
    h = torch.randn(graph.n_nodes, 6, dtype=torch.float64, requires_grad=True)
    found = values_and_gradients(layer, layer, h, graph)
    expected = values_and_gradients(lambda h, g: plain(layer, h, g), layer, h, graph)
    assert_equal(found, expected, 1e-12)


def test_attention_of_large_scores_does_not_overflow():
    layer = GATLayer(6, 3).double()
    h = 1e4 * torch.randn(Graph(HISTORIES, V).n_nodes, 6, dtype=torch.float64)
    found = layer(h, Graph(HISTORIES, V))
    assert torch.isfinite(found).all()
    assert_equal([found], [plain(layer, h, Graph(HISTORIES, V))], 1e-12)


def test_lightgcn_by_hand():
    graph = Graph(HISTORIES, V)
    h = torch.eye(7, dtype=torch.float64)
    one = LightGCNLayer()(h, graph)
    # film 1 (node 1) was seen by users 0 (3 films, node 4) and 1 (1 film, node 5)
    assert one[1, 4].item() == pytest.approx(1 / math.sqrt(2 * 3))
    assert one[1, 5].item() == pytest.approx(1 / math.sqrt(2 * 1))
    assert one[1].count_nonzero() == 2 and one[3].count_nonzero() == 0
    # two steps: film 1 hears of film 0 through user 0 alone
    assert LightGCNLayer()(one, graph)[1, 0].item() == pytest.approx(
        1 / math.sqrt(2 * 3) * 1 / math.sqrt(3 * 2))


def edge_index(graph, self_loops):
    a = graph.matrix(self_loops)
    own = torch.repeat_interleave(torch.arange(graph.n_nodes), a.crow_indices().long().diff())
    return torch.stack([a.col_indices().long(), own])


def test_layers_and_lightgcn_equal_torch_geometric():
    nn = pytest.importorskip("torch_geometric.nn")
    rng = np.random.default_rng(0)
    graph = Graph([rng.choice(30, 9, replace=False) for _ in range(40)], 30)
    edges = edge_index(graph, False)
    h = torch.randn(graph.n_nodes, 8)
    theirs, ours = nn.GCNConv(8, 8, bias=False), GCNLayer(8)
    ours.weight.load_state_dict(theirs.lin.state_dict())
    assert_equal([ours(h, graph)], [theirs(h, edges)], 1e-5)
    theirs, ours = nn.GATConv(8, 2, heads=4, bias=False), GATLayer(8, 4)
    ours.weight.load_state_dict(theirs.lin.state_dict())
    with torch.no_grad():
        ours.receiver.copy_(theirs.att_dst[0])
        ours.sender.copy_(theirs.att_src[0])
    assert_equal([ours(h, graph)], [theirs(h, edges)], 1e-5)
    model = lightgcn(graph, 8, n_layers=3).eval()
    theirs = nn.models.LightGCN(graph.n_nodes, 8, 3)
    theirs.embedding.load_state_dict(model.embedding.state_dict())
    assert_equal([model()], [theirs.get_embedding(edges)], 1e-5)


@pytest.mark.parametrize("make", [gcn, lightgcn, gat])
def test_newcomers_change_nobody_and_get_what_a_node_would_get(make):
    torch.manual_seed(0)
    kw = {} if make is lightgcn else {"dropout": 0.0}
    model = make(Graph(HISTORIES, V), 8, **kw).double().eval()
    before = model()
    after = model(model.graph.with_users([np.array([1, 0]), np.array([3])]))
    assert torch.allclose(after[:7], before, atol=1e-14) and len(after) == 9
    # Did user 0 start at zero as well, a newcomer with their films would be user 0.
    with torch.no_grad():
        model.embedding.weight[V] = 0
    node, _ = model.vectors([HISTORIES[0]])
    newcomer, _ = model.vectors([HISTORIES[0]], fold_in=True)
    other, _ = model.vectors([np.array([0, 1])], fold_in=True)
    assert torch.allclose(node, newcomer, atol=1e-14)
    assert (node - other).abs().max() > 1e-5


def test_vectors_come_in_the_order_of_the_histories():
    model = lightgcn(Graph(HISTORIES, V), 8).eval()
    asked = [np.array([3]), np.array([0, 2]), np.array([1]), np.array([0]), np.array([2, 1, 0])]
    users, items = model.vectors(asked)
    whole = model(model.graph.with_users([asked[0], asked[3]]))
    assert torch.allclose(users, whole[[7, V + 2, V + 1, 8, V]], atol=1e-7)
    assert torch.equal(items, whole[:V]) and model.vectors([])[0].shape == (0, 8)


def sequences(parts, n_items):
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(len(parts)), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


def communities(users, seed, n_items=40):
    """Users of one half of the catalogue or the other; which films they see is chance."""
    rng = np.random.default_rng(seed)
    return sequences([rng.choice(n_items // 2, rng.integers(5, 11), replace=False)
                      + rng.integers(2) * n_items // 2 for _ in range(users)], n_items)


def test_unseen_items_are_unseen_and_uniform():
    seen = Graph([np.array([0, 1, 2]), np.array([4]), np.arange(1, 6)], 6).interactions
    users = np.tile([0, 1, 2], 3000)
    drawn = sample_negatives(seen, users, np.random.default_rng(0))
    assert not seen.toarray()[users, drawn].any()
    counts = [np.bincount(drawn[users == u], minlength=6) for u in range(3)]
    assert counts[2].tolist() == [3000, 0, 0, 0, 0, 0]
    assert abs(counts[0][3:] - 1000).max() < 120
    assert abs(counts[1][[0, 1, 2, 3, 5]] - 600).max() < 90
    with pytest.raises(ValueError, match="user 1 has seen all 2 items"):
        sample_negatives(Graph([np.array([0]), np.array([1, 0])], 2).interactions, np.array([0]),
               np.random.default_rng(0))


def test_training_takes_the_steps_of_a_plain_loop():
    train, held = communities(20, 0), communities(6, 1)
    graph = Graph([train[u] for u in range(20)] + held.histories(), 40)
    settings = TrainSettings(learning_rate=0.01, weight_decay=0.1, batch_size=32, max_epochs=3,
                             seed=5)
    torch.manual_seed(0)
    fast = lightgcn(graph, 8).double()
    torch.manual_seed(0)
    slow = lightgcn(graph, 8).double()
    start = slow.embedding.weight.detach().clone()
    history = fit_graph(fast, train, held, settings)
    dense = graph.matrix(False, torch.empty(0, dtype=torch.float64)).to_dense()
    optimizer = torch.optim.AdamW(slow.parameters(), lr=0.01, weight_decay=0.1)
    pairs = [(u, i) for u, row in enumerate(graph.interactions.toarray())
             for i in np.flatnonzero(row)]
    losses, ranked, kept = [], [], []

    def vectors():
        h = slow.embedding.weight
        return (h + dense @ h + dense @ dense @ h) / 3

    for epoch in range(3):
        rng = np.random.default_rng((5, epoch))
        order = rng.permutation(len(pairs))
        chosen = [pairs[p] for p in order]
        negative = sample_negatives(graph.interactions, np.array([u for u, _ in chosen]), rng)
        total = 0.0
        for begin in range(0, len(chosen), 32):
            h = vectors()
            loss = sum(-torch.log(torch.sigmoid(h[40 + u] @ h[i] - h[40 + u] @ h[j])) for (u, i), j
                       in zip(chosen[begin : begin + 32], negative[begin : begin + 32],
                              strict=True))
            optimizer.zero_grad()
            (loss / len(chosen[begin : begin + 32])).backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(chosen))
        h = vectors().detach()
        scores = (h[60:66] @ h[:40].T).numpy()
        ranked.append(1 - ndcg(target_ranks(scores, held.targets(), held.histories()), 40))
        kept.append(slow.embedding.weight.detach().clone())
    assert history.train_loss == pytest.approx(losses, rel=1e-9)
    assert history.validation_loss == pytest.approx(ranked, rel=1e-9)
    best = kept[history.best_epoch]
    assert torch.allclose(fast.embedding.weight, best, atol=1e-10)
    assert not torch.allclose(start, best, atol=1e-3)


@pytest.mark.parametrize("name", recommenders.names("graph"))
def test_graph_models_find_communities_in_and_outside_the_graph(name):
    train, held, test = communities(80, 0), communities(30, 1), communities(60, 2)
    model = recommenders.create(name, max_epochs=60, batch_size=256).fit(
        train, held, others=test.histories()[:30])
    outside = recommenders.create(name, max_epochs=60, batch_size=256, inductive=True).fit(
        train, held, others=test.histories())
    assert outside.model.graph.interactions.shape[0] == 80  # nobody but who trains
    for fitted in (model, outside):
        scores = fitted.score(test.histories())
        own = np.array([h[0] >= 20 for h in test.histories()])
        inside = np.where(own, scores[:, 20:].mean(1), scores[:, :20].mean(1))
        beyond = np.where(own, scores[:, :20].mean(1), scores[:, 20:].mean(1))
        assert (inside > beyond).mean() > 0.95
    # 20 films of the community, 5 to 10 of them seen: about 13 are left
    assert hit_rate(evaluate(model, test).ranks, 14) > 0.85


def test_a_training_that_was_cut_off_goes_on(tmp_path):
    train, held = communities(20, 0), communities(6, 1)

    def fitted(epochs, checkpoint=None, others=()):
        return recommenders.create("gcn", max_epochs=epochs, batch_size=64).fit(
            train, held, checkpoint, others=others)

    path = tmp_path / "c.safetensors"
    fitted(3, path)
    resumed, whole = fitted(6, path), fitted(6)
    assert resumed.curve.train_loss == whole.curve.train_loss
    assert np.array_equal(resumed.score(held.histories()), whole.score(held.histories()))
    with pytest.raises(ValueError, match="another run"):  # of a graph with other edges
        fitted(6, path, others=[np.array([0, 1])])


def test_no_fold_has_a_target_in_its_graph(data_folder, monkeypatch):
    profile = PROFILES["sample"]
    whole = experiment.make_sequences(profile, movielens.load(profile.dataset))
    graphs = []

    def keep(model, train, validation, *_, **__):
        graphs.append(model.graph)
        return training.LearningCurve()

    monkeypatch.setattr(training, "fit_graph", keep)
    folds = experiment.make_folds(profile, whole)
    for fold in folds:
        train, validation, test = map(whole.select, (fold.train, fold.validation, fold.test))
        recommenders.create("lightgcn", d_model=1).fit(train, validation, others=test.histories())
        seen = graphs[-1].interactions
        assert seen.shape == (len(whole), whole.n_items)
        held = np.concatenate([validation.targets(), test.targets()])
        rows = len(train) + np.arange(len(held))
        assert not seen.toarray()[rows, held].any()
        assert seen.nnz == len(train.items) + sum(
            len(part.items) - len(part) for part in (validation, test))
    assert len(graphs) == 10


def test_scores_before_training_are_refused():
    with pytest.raises(RuntimeError, match="call fit first"):
        recommenders.create("gat").score([np.array([1])])
    with pytest.raises(ValueError, match="d_model=6.*n_heads=4"):
        GATLayer(6, 4)


@pytest.mark.parametrize("make, act", [(gcn, F.relu), (gat, F.elu), (lightgcn, None)])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_layers_stand_in_each_other_and_the_last_is_bare(make, act, n_layers):
    """Dropout and activation between layers, none behind the last; LightGCN takes the mean."""
    torch.manual_seed(0)
    kw = {} if act is None else {"dropout": 0.4}
    model = make(Graph(HISTORIES, V), 8, n_layers=n_layers, **kw).double()
    with torch.no_grad():
        model.embedding.weight.normal_()  # far from 0, where every activation is straight
    for training_mode in (False, True):
        model.train(training_mode)
        h, outputs = model.embedding.weight, [model.embedding.weight]
        torch.manual_seed(1)
        for number, layer in enumerate(model.layers):
            if number and act:
                h = F.dropout(act(h), 0.4, training_mode)
            h = plain(layer, h, model.graph)
            outputs.append(h)
        expected = h if act else sum(outputs) / len(outputs)
        torch.manual_seed(1)
        found = model()
        assert_equal([found], [expected], 1e-12)
        assert act is None or found.min() < -0.05  # neither ReLU nor ELU was the last to act


@pytest.mark.parametrize("make, std", [(gcn, 0.1), (gat, 0.1), (lightgcn, 0.01)])
def test_first_vectors_have_the_deviation_of_their_model(make, std):
    torch.manual_seed(0)
    weight = make(Graph([np.arange(300)] * 50, 300)).embedding.weight  # 350 nodes of 64 numbers
    assert weight.shape == (350, 64)
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert abs(weight.mean().item()) < 0.05 * std


def test_defaults_are_those_of_the_thesis():
    graph = Graph(HISTORIES, V)
    assert [len(make(graph).layers) for make in (gcn, lightgcn, gat)] == [2, 2, 2]
    assert [make(graph).dropout.p for make in (gcn, lightgcn, gat)] == [0.5, 0.0, 0.5]
    assert [layer.n_heads for layer in gat(graph).layers] == [4, 4]


def test_a_digest_knows_every_edge_and_every_node():
    told = {Graph(histories, n).digest() for histories, n in (
        (HISTORIES, V), (HISTORIES, V + 1), (HISTORIES[:2], V), ([*HISTORIES[:2], np.array([2, 1])],
                                                                 V), (HISTORIES[::-1], V))}
    assert len(told) == 5
    assert Graph([h[::-1] for h in HISTORIES], V).digest() == Graph(HISTORIES, V).digest()


def test_of_two_users_with_one_history_the_first_is_meant():
    model = lightgcn(Graph([*HISTORIES, np.array([1])], V), 8).eval()
    users, _ = model.vectors([np.array([1])])
    assert torch.equal(users[0], model()[V + 1])
    assert not torch.equal(users[0], model()[V + 3])


def test_asking_twice_makes_no_second_matrix_and_copies_leave_them_behind():
    import pickle

    graph = Graph(HISTORIES, V)
    assert graph.matrix(True) is graph.matrix(True)
    assert graph.matrix(True) is not graph.matrix(False)
    assert graph.matrix(True, torch.empty(0).double()).dtype == torch.float64
    assert graph.reverse() is graph.reverse()
    copy = pickle.loads(pickle.dumps(graph))
    assert not copy._made and graph._made
    assert torch.equal(copy.matrix(True).to_dense(), graph.matrix(True).to_dense())


def test_a_message_from_a_film_that_nobody_saw_is_none():
    graph = Graph([np.array([0])], 3)
    assert graph.matrix(False).to_dense()[1:3].abs().sum() == 0
    assert graph.matrix(True).to_dense().diag().tolist() == [0.5, 1, 1, 0.5]


def test_attention_of_every_edge_by_its_equation():
    torch.manual_seed(0)
    layer, graph = GATLayer(6, 3).double(), Graph(HISTORIES, V)
    z = torch.randn(graph.n_nodes, 3, 2, dtype=torch.float64)
    expected = []
    for i, near in enumerate(neighbours(graph, 1)):
        e = F.leaky_relu((layer.receiver * z[i]).sum(-1) + (layer.sender * z[near]).sum(-1), 0.2)
        expected.append(e.softmax(0))
    found = layer.attention(z, graph)
    assert found.shape == (graph.matrix(True).values().numel(), 3)
    assert_equal([found], [torch.cat(expected)], 1e-12)


def test_films_and_users_without_an_edge_have_their_nodes():
    nobody = np.array([], np.int32)
    for histories, edges in (([], 0), ([nobody], 0), ([nobody, np.array([2]), nobody], 2)):
        graph = Graph(histories, 3)
        assert graph.n_nodes == 3 + len(histories) and graph.rows.nnz == edges
        assert graph.interactions.shape == (len(histories), 3)
    alone = graph.matrix(True).to_dense().diag().tolist()
    assert alone == [1, 1, 0.5, 1, 0.5, 1]


@pytest.mark.parametrize("history", [[], [4], [-1]])
def test_users_of_impossible_histories_have_no_vectors(history):
    with pytest.raises(ValueError, match="history 1"):
        lightgcn(Graph(HISTORIES, V), 8).vectors([HISTORIES[0], np.array(history, int)])


def test_sizes_that_are_none_are_refused():
    graph = Graph(HISTORIES, V)
    for make, name in ((lambda: Graph([], 0), "n_items"), (lambda: GCNLayer(0), "d_model"),
                       (lambda: GATLayer(0, 1), "d_model"), (lambda: GATLayer(4, 0), "n_heads"),
                       (lambda: lightgcn(graph, 0), "d_model"),
                       (lambda: gcn(graph, 8, n_layers=0), "n_layers"),
                       (lambda: gat(graph, 8, n_layers=0), "n_layers")):
        with pytest.raises(ValueError, match=f"{name}=0: expected a whole number, 1 or more"):
            make()
