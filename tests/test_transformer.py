"""What stands before, around and between the Transformer's blocks."""

import math

import numpy as np
import pytest
import torch

from nbrec.models.next_item import NextItemModel, sasrec, transformer
from nbrec.models.transformer import (
    PreNormBlock,
    TransformerBlock,
    causal_mask,
    sinusoidal_positions,
)


def test_inputs_by_hand():
    """Embedding times sqrt(d), plus the position (thesis section 3.2.1)."""
    model = transformer(5, d_model=4, n_heads=2, max_length=8).double().eval()
    m = model.embedding.weight
    h = model.inputs(torch.tensor([[3, 0, 3]]))[0]
    p = [[0, 1, 0, 1]] + [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)]
                          for t in (1, 2)]
    expected = torch.stack([2 * m[3], 2 * m[0], 2 * m[3]]) + torch.tensor(p, dtype=m.dtype)
    assert torch.allclose(h, expected, atol=1e-7)


def test_without_positions_the_embedding_is_the_input():
    model = NextItemModel(5, [], d_model=4, positions=False).eval()
    items = torch.tensor([[3, 0, 3]])
    assert torch.equal(model(items), model.embedding(items))


def test_a_shift_of_positions_is_one_rotation():
    """p_(t+s) is a linear function of p_t, the same for every t (Vaswani et al., section 3.5)."""
    d, shift = 8, 5
    p = sinusoidal_positions(60, d).double().numpy()
    rotate = np.zeros((d, d))
    for j in range(0, d, 2):
        w = shift / 10000 ** (j / d)
        rotate[j : j + 2, j : j + 2] = [[math.cos(w), math.sin(w)], [-math.sin(w), math.cos(w)]]
    assert np.allclose(p[:-shift] @ rotate.T, p[shift:], atol=1e-5)
    assert not np.allclose(p[:-shift], p[shift:], atol=0.1)


def test_dropout_stands_where_the_equations_have_it():
    """With everything dropped, a block is two LayerNorms, and the model's input is zero."""
    torch.manual_seed(0)
    block = TransformerBlock(8, n_heads=2, dropout=0.999999).train()
    h = torch.randn(2, 5, 8)
    assert torch.allclose(block(h), block.norm_ff(block.norm_attention(h)), atol=1e-6)
    assert not torch.allclose(block.eval()(h), block.norm_ff(block.norm_attention(h)), atol=1e-2)
    model = transformer(9, d_model=8, n_heads=2, dropout=0.999999).train()
    items = torch.tensor([[1, 2, 3]])
    assert (model.inputs(items) == 0).all() and (model.eval().inputs(items) != 0).any()


def test_defaults_are_those_of_the_thesis():
    """Thesis Table 3.1: width 512, 2 layers, 8 heads; the feed-forward net is 4 d wide."""
    with torch.device("meta"):
        blocks = [TransformerBlock(512)]
    model = transformer(7)
    assert model.embedding.embedding_dim == 512 and len(model.blocks) == 2
    for block in [*model.blocks, *blocks]:
        assert block.n_heads == 8 and block.w_1.out_features == 2048
        assert block.dropout.p == 0.1
    assert model.output.bias is not None and model.blocks[0].w_qkv.bias is None


def test_scaled_embeddings_start_with_variance_one():
    torch.manual_seed(0)
    model = transformer(2000, d_model=64)
    assert abs((model.embedding.weight * model.scale).std().item() - 1) < 0.02


def test_norms_inside_the_block_equal_torchs_own_layer():
    torch.manual_seed(0)
    block = PreNormBlock(8, n_heads=2, d_ff=12, dropout=0.0).double()
    twin = torch.nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True,
                                            norm_first=True).double()
    with torch.no_grad():
        for norm in (block.norm_attention, block.norm_ff):
            norm.weight.normal_()
            norm.bias.normal_()
        twin.self_attn.in_proj_weight.copy_(block.w_qkv.weight)
        twin.self_attn.in_proj_bias.zero_()
        twin.self_attn.out_proj.weight.copy_(block.w_o.weight)
        twin.self_attn.out_proj.bias.zero_()
    for mine, theirs in ((block.w_1, twin.linear1), (block.w_2, twin.linear2),
                         (block.norm_attention, twin.norm1), (block.norm_ff, twin.norm2)):
        theirs.load_state_dict(mine.state_dict())
    h = torch.randn(3, 7, 8, dtype=torch.float64)
    expected = twin(h, src_mask=causal_mask(7).double(), is_causal=True)
    assert torch.allclose(block(h), expected, atol=1e-12)
    post_norm = TransformerBlock(8, 2, 12, 0.0).double()
    post_norm.load_state_dict(block.state_dict())
    assert not torch.allclose(post_norm(h), expected, atol=0.1)


def test_sasrec_ties_its_matrices_and_learns_its_positions():
    model = sasrec(9, d_model=8, max_length=5).double()
    loss = model.output(model(torch.tensor([[1, 2]])))[0, -1].logsumexp(0)
    loss.backward()
    assert model.output.weight is model.embedding.weight and model.output.bias is None
    touched = model.embedding.weight.grad.abs().sum(1)
    assert (touched > 0).all()  # of items that were not in the history as well
    assert (model.positions.grad[:2] != 0).any() and (model.positions.grad[2:] == 0).all()
    names = [name for name, _ in model.named_parameters()]
    assert "output.weight" not in names and "positions" in names


@pytest.mark.parametrize("make", [TransformerBlock, PreNormBlock])
def test_one_item_at_a_time_gives_the_same(make):
    torch.manual_seed(0)
    block, h = make(16, n_heads=2).double().eval(), torch.randn(2, 9, 16, dtype=torch.float64)
    state, steps = None, []
    for t in range(9):
        y, state = block.step(h[:, t], state)
        steps.append(y)
        assert state[0].shape == state[1].shape == (2, 2, t + 1, 8)
    assert torch.allclose(torch.stack(steps, 1), block(h), atol=1e-12)
    found, weights = block.with_weights(h)
    assert torch.allclose(found, block(h), atol=1e-12)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 9, dtype=torch.float64))
    assert (weights[:, :, 3, 4:] == 0).all() and weights[:, :, 3, :4].min() > 0


def test_dropout_inside_stands_where_the_equations_have_it(monkeypatch):
    """SASRec drops inside its feed-forward network as well, the thesis behind it alone."""
    torch.manual_seed(0)
    h = torch.randn(2, 5, 16, dtype=torch.float64)
    for make, widths in ((TransformerBlock, [16, 16]), (PreNormBlock, [16, 24, 16])):
        block, calls = make(16, n_heads=4, d_ff=24).double(), []
        monkeypatch.setattr(block.dropout, "forward", lambda a, c=calls: c.append(a) or 2 * a)
        found = block(h)
        assert [c.shape[-1] for c in calls] == widths
        if make is PreNormBlock:
            a = h + 2 * block.attention(block.norm_attention(h))
            inner = torch.relu(block.w_1(block.norm_ff(a)))
            expected = a + 2 * block.w_2(2 * inner)
        else:
            a = block.norm_attention(h + 2 * block.attention(h))
            expected = block.norm_ff(a + 2 * block.w_2(torch.relu(block.w_1(a))))
        assert torch.allclose(found, expected, atol=1e-12)


def test_positions_of_odd_widths_end_with_a_sine():
    p = sinusoidal_positions(4, 5)
    assert p.shape == (4, 5) and p.dtype == torch.float32
    assert p[3, 4].item() == pytest.approx(math.sin(3 / 10000 ** (4 / 5)), abs=1e-7)
    assert p[2, 1].item() == pytest.approx(math.cos(2), abs=1e-7)


def test_the_mask_hides_what_comes_later():
    inf = math.inf
    assert causal_mask(3).tolist() == [[0, -inf, -inf], [0, 0, -inf], [0, 0, 0]]


@pytest.mark.parametrize("wrong", [{"d_ff": 0}, {"d_ff": 2.5}, {"n_heads": 0}, {"d_model": 0},
                                   {"dropout": 1.0}, {"dropout": -0.1}])
@pytest.mark.parametrize("make", [TransformerBlock, PreNormBlock])
def test_impossible_settings_are_refused(make, wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        make(**{"d_model": 16} | wrong)
