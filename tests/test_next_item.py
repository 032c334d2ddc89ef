"""What every backbone must do inside ``NextItemModel``: look back only, and step as it passes."""

import pytest
import torch
from torch.nn import functional as F

from nbrec.models.mamba import MambaBlock
from nbrec.models.next_item import NextItemModel, mamba, mamba4rec, sasrec, transformer, xlstm
from nbrec.models.transformer import TransformerBlock
from nbrec.models.xlstm import MLSTMBlock, SLSTMBlock

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
        if name.endswith(("w_if.weight", ".r")):  # they start at zero: make them count
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
