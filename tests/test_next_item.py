"""What every backbone must do inside ``NextItemModel``: look back only, and step as it passes."""

import inspect

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nbrec.models.fusion import LateFusion
from nbrec.models.mamba import MambaBlock
from nbrec.models.mlstm import MLSTMBlock
from nbrec.models.mlstm_beck import BeckMLSTMBlock
from nbrec.models.next_item import NextItemModel, mamba, mamba4rec, sasrec, transformer, xlstm
from nbrec.models.next_item import stack as stack_of
from nbrec.models.slstm import SLSTMBlock
from nbrec.models.transformer import TransformerBlock

SMALL = {"d_model": 16, "max_length": 12}


def stack(n_items, d_model, max_length):
    blocks = [TransformerBlock(d_model, 4), MambaBlock(d_model), MLSTMBlock(d_model, 4),
              SLSTMBlock(d_model, 4)]
    return NextItemModel(n_items, blocks, d_model, max_length, final_norm=True)


BACKBONES = {
    "transformer": lambda n: transformer(n, n_heads=4, **SMALL),
    "sasrec": lambda n: sasrec(n, n_heads=4, **SMALL),
    "mamba": lambda n: mamba(n, **SMALL),
    "mamba, d_conv 4, zoh": lambda n: mamba(n, d_conv=4, zoh=True, **SMALL),
    "mamba, literal": lambda n: mamba(n, residual=False, **SMALL),
    "mamba4rec": lambda n: mamba4rec(n, **SMALL),
    "xlstm": lambda n: xlstm(n, n_heads=4, **SMALL),
    "xlstm, literal": lambda n: xlstm(n, n_heads=4, form="literal", **SMALL),
    "xlstm, beck": lambda n: xlstm(n, n_heads=4, form="beck", **SMALL),
    "xlstm[0:1]": lambda n: xlstm(n, n_heads=4, slstm_at=(0, 1), **SMALL),
    "xlstm[1:1]": lambda n: xlstm(n, n_heads=4, slstm_at=(1,), **SMALL),
    "stack": lambda n: stack(n, **SMALL),
}


@pytest.fixture(params=BACKBONES)
def model(request):
    torch.manual_seed(0)
    model = BACKBONES[request.param](20).double().eval()
    for name, p in model.named_parameters():
        if name.endswith(("if_gate.weight", ".r")):  # they start at zero: make them count
            torch.nn.init.normal_(p, std=0.3)
    return model


def test_no_output_sees_the_future(model):
    items = torch.randint(0, 20, (1, 10))
    before = model(items)
    for t in (0, 4, 9):
        changed = items.clone()
        changed[0, t] = (changed[0, t] + 1) % 20
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] - before[:, t:]).abs().amax(-1).min() > 1e-6


def test_padding_and_neighbours_change_nothing(model):
    short, long = torch.tensor([[3, 1, 4]]), torch.randint(0, 20, (1, 9))
    both = torch.cat([F.pad(short, (0, 6), value=7), long])
    scores = model.score(both, torch.tensor([3, 9]))
    assert torch.allclose(scores[0], model.score(short, torch.tensor([3]))[0], atol=1e-12)
    assert torch.allclose(scores[1], model.score(long, torch.tensor([9]))[0], atol=1e-12)
    turned = model.score(both.flip(0), torch.tensor([9, 3])).flip(0)
    assert torch.allclose(scores, turned, atol=1e-12)


def test_one_item_is_enough(model):
    a, b = model.score(torch.tensor([[3], [4]]), torch.tensor([1, 1]))
    assert torch.isfinite(a).all() and (a - b).abs().max() > 1e-3


def test_stepwise_equals_the_parallel_pass(model):
    items = torch.randint(0, 20, (3, 12))
    expected = model(items)
    state = None
    for t in range(12):
        h, state = model.step(items[:, t], state)
        assert torch.allclose(h, expected[:, t], atol=1e-9) and h.abs().max() > 1e-2


def numbers(state):
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(map(numbers, state)) if isinstance(state, (tuple, list)) else 0


def test_the_state_of_recurrent_models_does_not_grow(model):
    sizes, state = [], None
    for t in range(12):
        _, state = model.step(torch.tensor([t]), state)
        sizes.append(numbers(state))
    attention = sum(isinstance(block, TransformerBlock) for block in model.blocks)
    grows = [b - a for a, b in zip(sizes, sizes[1:], strict=False)]
    assert grows == [attention * 2 * 16] * 11


def test_recurrent_models_step_beyond_max_length_and_attention_says_why_not(model):
    state = None
    items = torch.randint(0, 20, (14, 1))
    for item in items[:12]:
        _, state = model.step(item, state)
    if model.positions is not None:
        with pytest.raises(ValueError, match="item 13 has no position: max_length=12"):
            model.step(items[12], state)
    else:
        for item in items[12:]:
            h, state = model.step(item, state)
        assert torch.allclose(h, model(items.T)[:, -1], atol=1e-9)


def test_gradients_reach_every_weight(model):
    items = torch.randint(0, 20, (4, 12))
    model.train()
    logits = model.output(model(items)).flatten(0, 1)
    F.cross_entropy(logits, items.roll(-1, 1).flatten()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("name, scaled", [("transformer", True), ("sasrec", True),
                                          ("mamba", False), ("xlstm", False)])
def test_what_enters_the_first_block_by_hand(name, scaled):
    torch.manual_seed(0)
    model = BACKBONES[name](20).eval()
    items = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    expected = model.embedding.weight[items]
    if scaled:
        expected = 4 * expected + model.positions[:4]  # sqrt(16)
    else:
        assert model.positions is None
    assert torch.allclose(model.inputs(items), expected, atol=1e-6)
    assert torch.allclose(model.item_vectors(items[0]), (4 if scaled else 1)
                          * model.embedding.weight[items[0]], atol=1e-6)


def test_embeddings_and_learned_positions_start_with_one_over_the_root_of_the_width():
    torch.manual_seed(0)
    model = NextItemModel(2000, [], 64, 500, positions="learned")
    assert model.embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert model.positions.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert model.positions.shape == (500, 64) and model.positions.requires_grad


def test_only_learned_positions_are_weights():
    for name in ("transformer", "sasrec", "mamba"):
        assert ("positions" in BACKBONES[name](20).state_dict()) == (name == "sasrec"), name


def test_tied_models_share_one_matrix():
    for name, tied in (("transformer", False), ("sasrec", True), ("mamba", False),
                       ("mamba4rec", True), ("xlstm", False)):
        model = BACKBONES[name](20)
        assert (model.output.weight is model.embedding.weight) == tied, name
        assert (model.output.bias is not None) == (name == "transformer"), name
        normed = isinstance(model.norm, torch.nn.LayerNorm)
        assert normed == (name not in ("transformer", "mamba4rec")), name


@pytest.mark.parametrize("kinds, positions", [
    (("attention", "mamba"), True), (("mamba", "attention"), False), (("mlstm",), False),
    (("slstm", "attention", "attention"), False), (("attention",), True)])
def test_positions_are_added_only_where_attention_comes_first(kinds, positions):
    model = stack_of(20, kinds, n_heads=4, **SMALL)
    made = {"attention": TransformerBlock, "mamba": MambaBlock, "mlstm": MLSTMBlock,
            "slstm": SLSTMBlock}
    assert [type(block) for block in model.blocks] == [made[kind] for kind in kinds]
    assert (model.positions is not None) == positions and model.scale == (4 if positions else 1)
    assert isinstance(model.norm, torch.nn.LayerNorm) and model.output.bias is not None


def test_settings_reach_every_block():
    """Sizes and dropout that nobody would notice to be the default's."""
    kw = {"d_model": 16, "dropout": 0.3, "max_length": 7}
    for model, p in ((transformer(20, n_heads=2, d_ff=24, n_layers=3, **kw), 0.3),
                     (sasrec(20, n_heads=2, d_ff=24, n_layers=3, **kw), 0.3)):
        assert len(model.blocks) == 3 and model.max_length == 7 and model.dropout.p == p
        assert {(b.n_heads, b.w_1.out_features, b.dropout.p) for b in model.blocks} == {(2, 24, p)}
    model = transformer(20, input_dropout=0.2, **kw)
    assert model.dropout.p == 0.2 and {b.dropout.p for b in model.blocks} == {0.3}
    assert sasrec(20, d_model=16).blocks[0].w_1.out_features == 16
    assert transformer(20, d_model=16).blocks[0].w_1.out_features == 64
    model = mamba(20, n_layers=3, d_state=5, d_conv=3, expand=3, input_dropout=0.2, residual=False,
                  zoh=True, **kw)
    assert len(model.blocks) == 3 and model.dropout.p == 0.2 and model.max_length == 7
    assert {(*b.A_log.shape, b.conv1d.weight.shape[1], b.residual, b.zoh, b.dropout.p)
            for b in model.blocks} == {(48, 5, 3, False, True, 0.3)}
    model = mamba4rec(20, d_state=5, d_conv=3, expand=3, **kw)
    assert [(*b.A_log.shape, b.conv1d.weight.shape[1], b.drop.p, b.dropout.p)
            for b in model.blocks] == [(48, 5, 3, 0.3, 0.0)]
    assert model.dropout.p == 0.3 and model.max_length == 7
    model = xlstm(20, n_layers=3, n_heads=2, expand=3, input_dropout=0.2, form="beck",
                  slstm_at=(1,), **kw)
    assert [type(b) for b in model.blocks] == [BeckMLSTMBlock, SLSTMBlock, BeckMLSTMBlock]
    assert {(b.n_heads, b.dropout.p) for b in model.blocks} == {(2, 0.3)}
    assert {b.in_proj.out_features for b in model.blocks[::2]} == {48}
    assert model.dropout.p == 0.2 and model.max_length == 7
    model = stack_of(20, ("attention", "mamba", "mlstm", "slstm"), n_heads=2, d_ff=24, d_state=5,
                     d_conv=3, expand=3, input_dropout=0.2, **kw)
    a, b, c, d = model.blocks
    assert (a.n_heads, a.w_1.out_features, a.dropout.p) == (2, 24, 0.3)
    assert (*b.A_log.shape, b.conv1d.weight.shape[1], b.dropout.p) == (48, 5, 3, 0.3)
    assert (c.n_heads, c.in_proj.out_features, c.dropout.p) == (2, 48, 0.3)
    assert (d.n_heads, d.dropout.p) == (2, 0.3) and model.dropout.p == 0.2
    assert model.max_length == 7


def test_defaults_are_those_of_the_thesis_and_of_the_papers():
    """Tables 3.1, 3.3 and 3.5; a reader who names no setting gets these."""
    made = {f.__name__: inspect.signature(f).parameters for f in (
        transformer, sasrec, mamba, mamba4rec, xlstm, stack_of, NextItemModel)}
    thesis = {"d_model": 512, "n_layers": 2, "dropout": 0.1, "max_length": 90}
    expected = {
        "transformer": thesis | {"n_heads": 8, "d_ff": None, "input_dropout": None},
        "mamba": thesis | {"d_state": 16, "d_conv": 8, "expand": 2, "input_dropout": 0.0,
                           "residual": True, "zoh": False},
        "xlstm": thesis | {"n_heads": 8, "expand": 2, "input_dropout": 0.0, "form": "thesis",
                           "slstm_at": ()},
        "stack": {k: v for k, v in thesis.items() if k != "n_layers"} | {
            "n_heads": 8, "d_ff": None, "d_state": 16, "d_conv": 8, "expand": 2,
            "input_dropout": 0.0},
        "NextItemModel": {"max_length": 90, "dropout": 0.1, "positions": True,
                          "final_norm": False, "output_bias": True, "tied": False},
        "sasrec": {"d_model": 64, "n_layers": 2, "n_heads": 1, "d_ff": None, "dropout": 0.1,
                   "max_length": 200},
        "mamba4rec": {"d_model": 64, "d_state": 32, "d_conv": 4, "expand": 2, "dropout": 0.2,
                      "max_length": 200},
    }
    assert {name: {p.name: p.default for p in parameters.values() if p.default is not p.empty}
            for name, parameters in made.items()} == expected


def test_scores_of_many_histories_come_in_their_order(model):
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 20, n) for n in (3, 15, 1, 12, 7, 3, 2)]  # one longer than 12
    for batch_size in (1, 3, 256):
        found = model.score_histories(histories, batch_size=batch_size)
        assert found.dtype == np.float32 and found.shape == (7, 20)
        for history, row in zip(histories, found, strict=True):
            items = torch.from_numpy(history[-12:])[None]
            alone = model.score(items, torch.tensor([items.shape[1]]))[0]
            assert row == pytest.approx(alone.numpy(), abs=1e-5)


def test_scores_with_a_late_fusion_use_each_users_own_vector():
    torch.manual_seed(0)
    model = transformer(20, n_heads=4, **SMALL).eval()
    model.late = LateFusion(3, 16)
    users = torch.randn(4, 3)
    histories = [np.array([1, 2, 3]), np.array([4]), np.array([5, 6]), np.array([7, 8, 9, 1])]
    for batch_size in (2, 256):
        found = model.score_histories(histories, users, batch_size)
        for u, history in enumerate(histories):
            with torch.no_grad():
                h = model(torch.from_numpy(history)[None])[:, -1]
                alone = model.output(model.late(h, users[u : u + 1]))[0]
            assert found[u] == pytest.approx(alone.numpy(), abs=1e-5)
    assert np.abs(model.score_histories(histories, users.flip(0)) - found).max() > 1e-3


def test_an_empty_history_has_no_scores(model):
    with pytest.raises(ValueError, match="empty"):
        model.score_histories([np.array([1]), np.array([], dtype=int)])


@pytest.mark.parametrize("kinds", [(), ("attention", "lstm")])
def test_stacks_of_nothing_or_of_unknown_blocks_are_refused(kinds):
    with pytest.raises(ValueError, match="expected one or more of attention, mamba, mlstm, slstm"):
        stack_of(20, kinds, **SMALL)


@pytest.mark.parametrize("build", [transformer, mamba, xlstm])
def test_scores_do_not_depend_on_the_mode_that_training_left(build):
    torch.manual_seed(0)
    net = build(9, d_model=16, dropout=0.5).train()
    histories = [np.array([1, 2, 3]), np.array([4])]
    scores = net.score_histories(histories)
    np.testing.assert_array_equal(scores, net.score_histories(histories))
    h, state = net.step(torch.tensor([4]))
    assert net.training and all(block.training for block in net.blocks)
    np.testing.assert_array_equal(scores, net.eval().score_histories(histories))
    with torch.no_grad():
        np.testing.assert_allclose(net.output(h.clone()).numpy(), scores[1:], atol=1e-5)
    torch.testing.assert_close(h, net.step(torch.tensor([4]))[0])


@pytest.mark.parametrize("build", [transformer, sasrec])
def test_the_weights_of_attention_are_those_that_made_the_output(build):
    torch.manual_seed(0)
    net = build(9, d_model=8, n_heads=2, max_length=6).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # norms that do nothing would hide one that is left out
            parameter.add_(0.3 * torch.randn_like(parameter))
        items = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
        hidden, weights = net.with_attention(items)
        torch.testing.assert_close(hidden, net(items))
        block, h = net.blocks[-1], net.blocks[0](net.inputs(items))
        if build is sasrec:
            h = block.norm_attention(h)
        q, k, v = (a.unflatten(-1, (2, 4)).transpose(1, 2) for a in block.w_qkv(h).chunk(3, -1))
        expected = (q @ k.transpose(-1, -2) / 2).masked_fill(
            torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    torch.testing.assert_close(weights, expected)
    assert weights.std() > 0.01


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_of_the_first_layer_that_is_none_is_refused(dropout):
    with pytest.raises(ValueError, match=f"dropout={dropout}: expected a number"):
        NextItemModel(20, [], 8, dropout=dropout)


def test_scores_and_steps_keep_nothing_for_a_gradient(model):
    h, _ = model.step(torch.tensor([1]))
    assert not h.requires_grad and model(torch.tensor([[1]])).requires_grad
    assert not model.score(torch.tensor([[1]]), torch.tensor([1])).requires_grad


@pytest.mark.parametrize("make", [transformer, sasrec, mamba, xlstm])
@pytest.mark.parametrize("n_layers", [0, 1.5])
def test_a_number_of_layers_that_is_none_is_refused(make, n_layers):
    with pytest.raises(ValueError, match=f"n_layers={n_layers}: expected a whole number"):
        make(20, d_model=16, n_layers=n_layers)
