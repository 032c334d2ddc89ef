"""mLSTM and sLSTM: three forms that agree, loops from the paper, and transformers' own cell."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers.models.xlstm import modeling_xlstm as theirs
from twins import assert_equal, values_and_gradients

from nbrec.models.mlstm import (
    MLSTMBlock,
    mlstm_chunkwise,
    mlstm_parallel,
    mlstm_recurrent,
    mlstm_step,
)
from nbrec.models.mlstm_beck import BeckMLSTMBlock
from nbrec.models.next_item import xlstm
from nbrec.models.slstm import SLSTMBlock


def cell_inputs(length=23, gates=1.0, batch=2, heads=3, width=5, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, length, width, dtype=dtype)
    i, f = gates * torch.randn(2, batch, heads, length, dtype=dtype)
    return [x.requires_grad_() for x in (q, k, v, i, f)]


def by_the_paper(q, k, v, i, f, normalise):
    """Beck et al., eq. 19 to 27 without any stabiliser, one head at a time."""
    h = torch.zeros_like(q)
    d = q.shape[-1]
    for b in range(q.shape[0]):
        for head in range(q.shape[1]):
            C, n = torch.zeros(d, d, dtype=q.dtype), torch.zeros(d, dtype=q.dtype)
            for t in range(q.shape[2]):
                forget = 1 / (1 + math.exp(-f[b, head, t].item()))
                write = math.exp(i[b, head, t].item())
                key = k[b, head, t] / d**0.5
                C = forget * C + write * torch.outer(v[b, head, t], key)
                n = forget * n + write * key
                below = max(abs((n @ q[b, head, t]).item()), 1) if normalise else 1
                h[b, head, t] = C @ q[b, head, t] / below
    return h


@pytest.mark.parametrize("normalise", [True, False])
def test_recurrent_form_is_that_of_the_paper(normalise):
    inputs = [x.detach() for x in cell_inputs()]
    assert_equal([mlstm_recurrent(*inputs, normalise)], [by_the_paper(*inputs, normalise)])


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("length", [1, 2, 23])
@pytest.mark.parametrize("gates", [1.0, 3.0])
def test_parallel_equals_recurrent(normalise, length, gates):
    inputs = cell_inputs(length, gates)
    inputs = inputs if length > 1 else [*inputs[:4], inputs[4].detach()]  # f_1 forgets nothing

    def both(function):
        h = function(*inputs, normalise)
        need = [x for x in inputs if x.requires_grad]
        return [h, *torch.autograd.grad(h.square().sum(), need)]

    assert_equal(both(mlstm_parallel), both(mlstm_recurrent))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("chunk", [1, 5, 7, 22, 23, 64])
def test_chunkwise_equals_recurrent_for_any_chunk(normalise, chunk):
    inputs = cell_inputs()
    assert_equal(
        values_and_gradients(mlstm_chunkwise, inputs, normalise=normalise, chunk=chunk),
        values_and_gradients(mlstm_recurrent, inputs, normalise=normalise))


def test_extreme_gates_agree_too():
    inputs = cell_inputs(gates=50.0)
    expected = values_and_gradients(mlstm_recurrent, inputs)
    assert_equal(values_and_gradients(mlstm_parallel, inputs), expected)
    assert_equal(values_and_gradients(mlstm_chunkwise, inputs, chunk=7), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("i, f", [(50, 50), (50, -50), (-50, 50), (-50, -50), (0, 6)])
def test_ten_thousand_items_stay_finite(dtype, i, f):
    q, k, v, gate_i, gate_f = cell_inputs(10_000, batch=1, heads=1, width=4, dtype=torch.float32)
    q, k = q.abs(), k.abs()  # n'q near 0 makes gradients that are too large for fp16 by right
    gate_i, gate_f = (torch.full_like(gate_i, x) for x in (i, f))
    inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v, gate_i, gate_f)]
    found = values_and_gradients(mlstm_chunkwise, inputs)
    assert all(torch.isfinite(x).all() for x in found) and found[0].dtype == dtype
    if i == 50 and f == -50:  # nothing is kept: each item reads what it wrote itself
        assert torch.allclose(found[0].float(), v, atol=2e-3)


def test_precision_does_not_fall_with_length():
    inputs = [x.detach() for x in cell_inputs(3000, batch=1, heads=1, width=4)]
    exact = mlstm_recurrent(*inputs)[:, :, -100:]
    short = mlstm_chunkwise(*(x.float() for x in inputs))[:, :, -100:]
    assert exact.abs().max() > 0.1 and (short - exact).abs().max() < 1e-4


def test_cell_equals_transformers():
    inputs = [x.detach() for x in cell_inputs(64)]
    q, k, v, i, f = inputs
    found = mlstm_chunkwise(*inputs, chunk=16)
    chunkwise = theirs.mlstm_chunkwise_native_autograd(q, k, v, i, f, chunk_size=16, eps=0.0)
    steps = theirs.mlstm_recurrent_sequence_native(q, k, v, i, f, eps=0.0,
                                                   dtype_state=torch.float64)
    assert_equal([found], [chunkwise])
    assert_equal([found], [steps])


def untrained(form, d_model, **sizes):
    return xlstm(5, d_model, n_layers=1, form=form, **sizes).blocks[0]


def block(form, seed=0):
    torch.manual_seed(seed)
    made = untrained(form, 16, n_heads=4, dropout=0.0).double()
    for p in made.parameters():  # gates start with zero weights: make everything count
        torch.nn.init.normal_(p, std=0.3)
    return made


def test_block_by_the_equations_of_the_thesis():
    made, x = block("thesis"), torch.randn(2, 9, 16, dtype=torch.float64)
    inner = made.norm(x) @ made.in_proj.weight.T
    w_q, w_k, w_v = made.qkv_proj.weight.split(32)
    w_i, w_f = made.if_gate.weight.split(4)
    b_i, b_f = made.if_gate.bias.split(4)
    heads = [(inner @ w.T).view(2, 9, 4, 8).transpose(1, 2) for w in (w_q, w_k, w_v)]
    gates = [(inner @ w.T + b).transpose(1, 2) for w, b in ((w_i, b_i), (w_f, b_f))]
    cell = by_the_paper(*heads, *gates, True).transpose(1, 2).reshape(2, 9, 32)
    o = 1 / (1 + torch.exp(-(inner @ made.o_gate.weight.T + made.o_gate.bias)))
    assert_equal([made(x)], [x + (cell * o) @ made.out_proj.weight.T])
    literal = block("literal")
    literal.load_state_dict(made.state_dict() | {"z_proj.weight": literal.z_proj.weight})
    cell = by_the_paper(*heads, *gates, False).transpose(1, 2).reshape(2, 9, 32)
    z = made.norm(x) @ literal.z_proj.weight.T
    assert_equal([literal(x)], [(cell * o) @ made.out_proj.weight.T + z])


def test_block_by_the_figure_of_beck_et_al():
    made, x = block("beck"), torch.randn(2, 9, 16, dtype=torch.float64)
    inner, z = made.norm(x) @ made.in_proj.weight.T, made.norm(x) @ made.z_proj.weight.T
    conv = made.conv1d.bias + sum(
        made.conv1d.weight[:, back] * F.pad(inner, (0, 0, back, 0))[:, :9] for back in range(4))
    conv = conv * torch.sigmoid(conv)
    q, k, v = (a @ torch.block_diag(*w.weight).T
               for a, w in zip((conv, conv, inner), made.qkv_proj, strict=True))
    gates = torch.cat((q, k, v), -1) @ made.if_gate.weight.T + made.if_gate.bias
    i, f = (g.transpose(1, 2) for g in gates.chunk(2, -1))
    heads = (a.view(2, 9, 4, 8).transpose(1, 2) for a in (q, k, v))
    h = by_the_paper(*heads, i, f, True).transpose(1, 2)
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    h = h.reshape(2, 9, 32) * made.head_norm + made.skip * conv
    expected = x + (h * z * torch.sigmoid(z)) @ made.out_proj.weight.T
    assert_equal([made(x)], [expected])


def test_slstm_by_the_equations_of_the_paper():
    """Beck et al., eq. 8 to 14, without stabiliser, one unit at a time."""
    torch.manual_seed(1)
    made = SLSTMBlock(6, n_heads=2, dropout=0.0).double()
    torch.nn.init.normal_(made.r, std=0.5)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    gates = (made.norm(x) @ made.w.weight.T + made.w.bias).view(2, 7, 2, 4, 3)
    r = made.r.view(2, 3, 4, 3)  # head, from unit, gate, to unit
    out = torch.zeros(2, 7, 2, 3, dtype=torch.float64)
    for b in range(2):
        for head in range(2):
            c, n, h = [0.0] * 3, [0.0] * 3, [0.0] * 3
            for t in range(7):
                before = list(h)
                for unit in range(3):
                    z, i, f, o = (
                        gates[b, t, head, g, unit].item()
                        + sum(before[j] * r[head, j, g, unit].item() for j in range(3))
                        for g in range(4))
                    forget, write = 1 / (1 + math.exp(-f)), math.exp(i)
                    c[unit] = forget * c[unit] + write * math.tanh(z)
                    n[unit] = forget * n[unit] + write
                    h[unit] = c[unit] / n[unit] / (1 + math.exp(-o))
                    out[b, t, head, unit] = h[unit]
    normed = F.layer_norm(out, (3,)).flatten(2) * made.head_norm
    y = x + normed
    ff = made.norm_ff(y)
    expected = y + made.down_proj(F.gelu(made.gate_proj(ff)) * made.up_proj(ff))
    assert_equal([made(x)], [expected])


@pytest.mark.parametrize("gate", [50.0, -50.0])
def test_slstm_with_extreme_gates_is_finite(gate):
    torch.manual_seed(0)
    made = SLSTMBlock(8, n_heads=2, dropout=0.0)
    with torch.no_grad():
        made.w.bias.view(2, 4, 4)[:, 1:3] = gate
    x = torch.randn(2, 300, 8, requires_grad=True)
    y = made(x)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    assert torch.isfinite(made.r.grad).all()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="n_heads=5"):
        MLSTMBlock(16, n_heads=5)
    with pytest.raises(ValueError, match="form='paper'"):
        xlstm(5, 16, form="paper")
    with pytest.raises(ValueError, match="n_heads=3"):
        SLSTMBlock(16, n_heads=3)


@pytest.mark.parametrize("form", ["thesis", "literal", "beck"])
def test_gates_start_alike_for_all_items_and_forget_slowly(form):
    torch.manual_seed(0)
    made = untrained(form, 1024, n_heads=1024, expand=1)
    write, forget = made.if_gate.bias.detach().chunk(2)
    assert not made.if_gate.weight.any()
    assert forget.tolist() == pytest.approx([3 + 3 * h / 1023 for h in range(1024)], abs=1e-5)
    assert write.std().item() == pytest.approx(0.1, rel=0.06)
    assert abs(write.mean().item()) < 0.02


def test_slstm_starts_without_mixing_and_forgets_slowly():
    made = SLSTMBlock(10, n_heads=2)
    assert not made.r.any() and made.head_norm.tolist() == [1] * 10
    forget = made.w.bias.detach().view(2, 4, 5)
    for head in range(2):
        assert forget[head, 2].tolist() == pytest.approx([3, 3.75, 4.5, 5.25, 6])
    others = forget[:, [0, 1, 3]]  # torch's own: within 1 / sqrt(10)
    assert others.abs().max() < 10**-0.5 and others.abs().min() > 0


def test_defaults_are_the_normalised_cell_and_the_block_of_the_thesis():
    inputs = [x.detach() for x in cell_inputs()]
    expected = by_the_paper(*inputs, True)
    for form in (mlstm_recurrent, mlstm_parallel, mlstm_chunkwise):
        assert_equal([form(*inputs)], [expected])
    first = [x[:, :, 0] for x in inputs]
    assert_equal([mlstm_step(*first)[0]], [expected[:, :, 0]])
    made = MLSTMBlock(16)
    assert (made.n_heads, made.in_proj.out_features, made.dropout.p, made.literal) == (
        8, 32, 0.1, False)
    made = BeckMLSTMBlock(16)
    assert (made.n_heads, made.in_proj.out_features, made.dropout.p) == (8, 32, 0.1)
    assert made.conv1d.weight.shape == (32, 4)
    assert (SLSTMBlock(16).n_heads, SLSTMBlock(16).dropout.p) == (8, 0.1)


@pytest.mark.parametrize("form", ["thesis", "literal", "beck"])
def test_dropout_leaves_the_residual_alone(form, monkeypatch):
    made = block(form)
    monkeypatch.setattr(made.dropout, "forward", torch.zeros_like)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    rest = made.norm(x) @ made.z_proj.weight.T if form == "literal" else x
    assert torch.equal(made(x), rest)
    assert torch.allclose(made.step(x[:, 0])[0], rest[:, 0], atol=1e-12)


def test_dropout_of_slstm_stands_behind_both_parts(monkeypatch):
    torch.manual_seed(0)
    made, x = SLSTMBlock(8, n_heads=2).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    calls = []
    monkeypatch.setattr(made.dropout, "forward", lambda a: calls.append(a) or torch.zeros_like(a))
    assert torch.equal(made(x), x)
    memories, network = calls
    assert_equal([network], [made.down_proj(F.gelu(made.gate_proj(made.norm_ff(x)))
                                         * made.up_proj(made.norm_ff(x)))])
    assert memories.shape == x.shape and memories.abs().max() > 0.1


@pytest.mark.parametrize("form, scale", [("conv", 4**-0.5), ("qkv", 4**-0.5)])
def test_first_values_of_the_block_of_beck_et_al(form, scale):
    """Convolution uniform as torch has it, 4 x 4 blocks normal; the rest lets through."""
    torch.manual_seed(0)
    made = BeckMLSTMBlock(512, n_heads=4)
    assert not made.conv1d.bias.any() and (made.head_norm == 1).all() and (made.skip == 1).all()
    if form == "conv":
        assert made.conv1d.weight.abs().max().item() == pytest.approx(scale, rel=0.01)
        assert made.conv1d.weight.std().item() == pytest.approx(scale / 3**0.5, rel=0.05)
    else:
        for part in made.qkv_proj:
            assert part.weight.shape == (256, 4, 4)
            assert part.weight.std().item() == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("form", ["thesis", "literal", "beck", "slstm"])
def test_one_item_at_a_time_gives_the_same(form):
    torch.manual_seed(0)
    made = SLSTMBlock(16, n_heads=4).double().eval() if form == "slstm" else block(form)
    torch.nn.init.normal_(made.r if form == "slstm" else made.if_gate.weight, std=0.5)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    state, steps = None, []
    for t in range(9):
        y, state = made.step(x[:, t], state)
        steps.append(y)
        window = state[0] if form == "beck" else None
        assert window is None or window.shape == (2, 3, 32)  # the last d_conv - 1, not all
    assert_equal([torch.stack(steps, 1)], [made(x)])
    assert SLSTMBlock(16).up_proj.out_features == 22  # 4/3 d, rounded up
