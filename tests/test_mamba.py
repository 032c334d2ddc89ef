"""The selective scan and the Mamba block, against loops from the papers and transformers' own."""

import math
import sys
import types

import pytest
import torch
from torch.nn import functional as F
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from twins import assert_equal, values_and_gradients

from nbrec.models import selective_scan as scan
from nbrec.models import selective_scan_loops as loops
from nbrec.models.causal_conv import causal_conv
from nbrec.models.mamba import Mamba4RecBlock, MambaBlock
from nbrec.models.next_item import mamba4rec
from nbrec.models.selective_scan import selective_scan, selective_scan_recurrent


@pytest.fixture(params=["compiled loops", "torch"])
def way(request, monkeypatch):
    """Both ways of the fast scan on a CPU."""
    if request.param == "torch":
        monkeypatch.setattr(loops, "njit", None)
    else:
        pytest.importorskip("numba")


def scan_inputs(batch=2, length=13, width=5, states=3, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    u = torch.randn(batch, length, width, dtype=dtype)
    delta = F.softplus(torch.randn(batch, length, width, dtype=dtype))
    A = -torch.rand(width, states, dtype=dtype).mul(4).add(0.01)
    B, C = torch.randn(2, batch, length, states, dtype=dtype)
    D = torch.randn(width, dtype=dtype)
    return [x.requires_grad_() for x in (u, delta, A, B, C, D)]


def by_the_paper(u, delta, A, B, C, D, zoh):
    """Scalars only: every inner dimension and every state number is an SSM of its own."""
    y = torch.zeros_like(u)
    for b in range(u.shape[0]):
        for d in range(u.shape[2]):
            h = [0.0] * A.shape[1]
            for t in range(u.shape[1]):
                step = delta[b, t, d].item()
                for n in range(A.shape[1]):
                    a = A[d, n].item()
                    gain = (math.exp(step * a) - 1) / a if zoh else step
                    h[n] = math.exp(step * a) * h[n] + gain * B[b, t, n].item() * u[b, t, d].item()
                y[b, t, d] = sum(C[b, t, n].item() * h[n] for n in range(A.shape[1]))
                y[b, t, d] += D[d].item() * u[b, t, d].item()
    return y


@pytest.mark.parametrize("zoh", [False, True])
def test_recurrence_is_that_of_the_paper(zoh):
    inputs = [x.detach() for x in scan_inputs()]
    assert_equal([selective_scan_recurrent(*inputs, zoh=zoh)], [by_the_paper(*inputs, zoh)])


@pytest.mark.parametrize("zoh", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 13, 100])
@pytest.mark.parametrize("skip", [False, True])
def test_scan_in_chunks_equals_the_recurrence(monkeypatch, way, zoh, steps, skip):
    inputs = scan_inputs()[: 6 if skip else 5]
    monkeypatch.setattr(scan, "CHUNK", steps)
    monkeypatch.setattr(loops, "CACHE", 1)  # one sequence at a time
    assert_equal(values_and_gradients(selective_scan, inputs, zoh=zoh),
                 values_and_gradients(selective_scan_recurrent, inputs, zoh=zoh))


def test_a_batch_split_between_threads_equals_the_recurrence(monkeypatch):
    inputs = scan_inputs(batch=7)[:5]
    monkeypatch.setattr(loops, "CACHE", 2 * scan.CHUNK * 5 * 3)  # two sequences at a time
    usual = torch.get_num_threads()
    torch.set_num_threads(3)  # parts of 3, 2 and 2 sequences
    try:
        assert_equal(values_and_gradients(selective_scan, inputs),
                     values_and_gradients(selective_scan_recurrent, inputs))
        with torch.inference_mode():
            assert_equal([selective_scan(*inputs)], [selective_scan_recurrent(*inputs)])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_scan_equals_transformers(way):
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan
    u, delta, A, B, C, D = (x.detach().float().double() for x in scan_inputs())  # it rounds
    its = mamba_selective_scan(u.mT, delta.mT, A, B.mT, C.mT, D=D)
    assert_equal([selective_scan(u, delta, A, B, C, D)], [its.mT])


def test_a_single_item_forgets_nothing(way):
    inputs = scan_inputs(length=1)
    found = values_and_gradients(selective_scan, inputs)
    expected = values_and_gradients(selective_scan_recurrent, inputs)
    assert (found.pop(3) == 0).all() and (expected.pop(3) == 0).all()  # A has nothing to act on
    assert_equal(found, expected)


def test_zoh_is_the_exact_solution_for_a_constant_input():
    """h' = a h + b u with constant u: h(t) = b u (exp(a t) - 1) / a, however it is cut in steps."""
    a, steps = -0.7, 10
    u, B, C = torch.ones(1, steps, 1), torch.full((1, steps, 1), 2.0), torch.ones(1, steps, 1)
    delta = torch.full((1, steps, 1), 0.3)
    exact = 2.0 * (math.exp(a * 3.0) - 1) / a
    args = [x.double() for x in (u, delta, torch.tensor([[a]]), B, C)]
    assert selective_scan(*args, zoh=True)[0, -1, 0].item() == pytest.approx(exact, rel=1e-7)
    assert selective_scan(*args)[0, -1, 0].item() > 1.05 * exact  # the simple step overshoots


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_steps_stay_finite(way, dtype):
    u, delta, A, B, C, _ = scan_inputs(length=400, dtype=torch.float32)
    with torch.no_grad():
        delta[:, ::3] = 50.0
        delta[:, 1::3] = 1e-20
    inputs = [x.detach().to(dtype).requires_grad_() for x in (u, delta, A, B, C)]
    for x in values_and_gradients(selective_scan, inputs):
        assert torch.isfinite(x).all() and x.dtype == dtype and x.abs().max() > 0


def test_no_tensor_holds_all_states(way):
    """The largest tensor that the scan makes is far below (B, L, D, N)."""
    inputs = scan_inputs(batch=1, length=3000, width=64, states=16, dtype=torch.float32)[:5]
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, torch.Tensor):
                    largest = max(largest, x.numel())
            return out

    with Watch():
        selective_scan(*inputs).sum().backward()
    assert 3000 * 64 <= largest < 3000 * 64 * 16 / 10


def test_the_librarys_kernel_gets_what_it_expects():
    """A stand-in with the signature of mamba-ssm's scan: u, delta (B, D, L), B, C (B, N, L)."""
    def kernel(u, delta, A, B, C):
        assert all(x.is_contiguous() for x in (u, delta, A, B, C))
        y = torch.zeros_like(u)
        h = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype)
        for t in range(u.shape[2]):
            step = delta[:, :, t, None]
            h = (step * A).exp() * h + step * B[:, None, :, t] * u[:, :, t, None]
            y[:, :, t] = (h * C[:, None, :, t]).sum(-1)
        return y

    inputs = [x.detach() for x in scan_inputs()[:5]]
    assert_equal([scan._library_scan(kernel, *inputs)], [selective_scan_recurrent(*inputs)])


def test_convolution_by_hand():
    """Thesis eq. 3.9 with w = (1, 10, 100) on 1, 2, 3, 4: the item itself, one back, two back."""
    x = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1)
    y = causal_conv(x, torch.tensor([[1.0, 10, 100]]), torch.tensor([0.5]))
    assert y.flatten().tolist() == [1.5, 12.5, 123.5, 234.5]


@pytest.mark.parametrize("d_conv", [4, 8])
def test_mixer_equals_transformers(d_conv):
    """Same weights, same outputs and gradients. transformers rounds A, D and b to float32 inside,
    so they are given values that this leaves alone."""
    torch.manual_seed(0)
    block = MambaBlock(32, d_state=4, d_conv=d_conv, dropout=0.0).double()
    config = MambaConfig(hidden_size=32, state_size=4, conv_kernel=d_conv, expand=2,
                         time_step_rank=2, num_hidden_layers=1, use_conv_bias=True)
    its = MambaMixer(config, 0).double().eval()
    with torch.no_grad():
        block.A_log.zero_()
        block.D.copy_(torch.arange(64) / 64)
        block.dt_proj.bias.copy_(block.dt_proj.bias.float())
        its.A_log.zero_()
        for mine, theirs in ((block.in_proj.weight, its.in_proj.weight),
                             (block.conv1d.weight.flip(1)[:, None], its.conv1d.weight),
                             (block.conv1d.bias, its.conv1d.bias), (block.D, its.D),
                             (block.x_proj.weight, its.x_proj.weight),
                             (block.dt_proj.weight, its.dt_proj.weight),
                             (block.dt_proj.bias, its.dt_proj.bias),
                             (block.out_proj.weight, its.out_proj.weight)):
            theirs.copy_(mine)
    x = torch.randn(2, 21, 32, dtype=torch.float64, requires_grad=True)
    assert_equal(values_and_gradients(block.mixer, [x]), values_and_gradients(its, [x]))


def test_initial_values_are_those_of_the_paper():
    torch.manual_seed(0)
    block = MambaBlock(64, d_state=16)
    assert torch.allclose(-block.A_log.exp(), -torch.arange(1.0, 17).expand(128, 16))
    assert (block.D == 1).all()
    delta = F.softplus(block.dt_proj.bias)
    assert 0.001 <= delta.min() and delta.max() <= 0.1
    assert abs(delta.log().mean() - math.log(0.01)) < 0.3  # uniform in the logarithm
    assert block.dt_proj.weight.abs().max() <= 4**-0.5


def test_the_literal_block_has_no_residual():
    torch.manual_seed(0)
    block = MambaBlock(16, dropout=0.0)
    x = torch.randn(2, 5, 16)
    both = block(x)
    block.residual = False
    assert torch.allclose(both - x, block(x), atol=1e-6) and block(x).abs().max() > 1e-3


def test_dropout_stands_where_the_equation_has_it(monkeypatch):
    """On Y, before the gate (thesis eq. 3.10): with all of it dropped the residual is left."""
    block = MambaBlock(8, dropout=0.5).train()
    monkeypatch.setattr(block.dropout, "forward", torch.zeros_like)
    x = torch.randn(1, 4, 8)
    assert torch.equal(block(x), x)


def test_the_layer_of_mamba4rec_by_its_equation():
    torch.manual_seed(0)
    block = Mamba4RecBlock(8, d_state=4).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    a = F.layer_norm(block.mixer(F.layer_norm(x, (8,))), (8,))
    inner = F.gelu(a @ block.w_1.weight.T + block.w_1.bias)
    expected = F.layer_norm(a + inner @ block.w_2.weight.T + block.w_2.bias, (8,))
    assert torch.allclose(block(x), expected, atol=1e-12)
    # No way round the mixer: without it nothing of the input is left.
    torch.nn.init.zeros_(block.out_proj.weight)
    assert torch.allclose(block(x), block(torch.randn_like(x)), atol=1e-12)


def test_mamba4rec_starts_as_its_authors_have_it():
    torch.manual_seed(0)
    model = mamba4rec(500)
    (block,) = model.blocks
    assert model.output.weight is model.embedding.weight and model.output.bias is None
    for weight in (model.embedding.weight, block.in_proj.weight, block.w_1.weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not block.dt_proj.bias.any() and not block.w_1.bias.any()
    assert block.conv1d.bias.any() and torch.equal(block.D, torch.ones(128))


def test_defaults_are_those_of_the_thesis_and_of_mamba4rec():
    """Thesis Table 3.3; Liu et al. (2024)."""
    block = MambaBlock(16)
    assert block.A_log.shape == (32, 16) and block.conv1d.weight.shape == (32, 8)
    assert block.dropout.p == 0.1 and block.residual and not block.zoh
    block = Mamba4RecBlock(16)
    assert block.A_log.shape == (32, 32) and block.conv1d.weight.shape == (32, 4)
    assert block.drop.p == 0.2 and block.dropout.p == 0 and block.w_1.out_features == 64
    assert not block.residual and not block.zoh
    for scan_ in (selective_scan, selective_scan_recurrent):  # the step of the reference code
        inputs = [x.detach() for x in scan_inputs()]
        assert_equal([scan_(*inputs)], [by_the_paper(*inputs, False)])


def test_first_values_are_spread_as_the_paper_has_them():
    torch.manual_seed(0)
    block = MambaBlock(512)
    assert block.dt_proj.in_features == 32 and MambaBlock(40).dt_proj.in_features == 3  # d / 16
    delta = F.softplus(block.dt_proj.bias.detach())
    assert (delta.min().item(), delta.max().item()) == pytest.approx((0.001, 0.1), rel=0.05)
    assert delta.log().std().item() == pytest.approx(math.log(100) / 12**0.5, rel=0.05)
    for weight, bound in ((block.conv1d.weight, 8**-0.5), (block.conv1d.bias, 8**-0.5),
                          (block.dt_proj.weight, 32**-0.5)):
        assert weight.max().item() == pytest.approx(bound, rel=0.01)
        assert weight.min().item() == pytest.approx(-bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_dropout_of_mamba4rec_stands_where_its_equation_has_it(monkeypatch):
    torch.manual_seed(0)
    block, x = Mamba4RecBlock(8).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    calls = []
    monkeypatch.setattr(block.drop, "forward", lambda a: calls.append(a) or 2 * a)
    found = block(x)
    a = block.norm_mixer(2 * block.mixer(block.norm(x)))
    inner = F.gelu(block.w_1(a))
    assert [c.shape[-1] for c in calls] == [8, 32, 8]
    assert torch.allclose(found, block.norm_ff(a + 2 * block.w_2(2 * inner)), atol=1e-12)


@pytest.mark.parametrize("make", [
    lambda: MambaBlock(16), lambda: MambaBlock(16, d_conv=3, zoh=True),
    lambda: MambaBlock(16, residual=False), lambda: Mamba4RecBlock(16)])
def test_one_item_at_a_time_gives_the_same(make):
    torch.manual_seed(0)
    block, x = make().double().eval(), torch.randn(2, 19, 16, dtype=torch.float64)
    state, steps = None, []
    for t in range(19):
        y, state = block.step(x[:, t], state)
        steps.append(y)
        assert state[0].shape == (2, block.conv1d.weight.shape[1] - 1, 32)
    assert_equal([torch.stack(steps, 1)], [block(x)])


# --- the library ---------------------------------------------------------------------------------


def library(monkeypatch, **content):
    """A stand-in for mamba_ssm.ops.selective_scan_interface with this content."""
    names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"]
    modules = [types.ModuleType(name) for name in names]
    modules[0].ops, modules[1].selective_scan_interface = modules[1:]
    for key, value in content.items():
        setattr(modules[2], key, value)
    for name, module in zip(names, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)


def test_the_librarys_scan_is_used_where_all_of_it_is_there(monkeypatch):
    library(monkeypatch, selective_scan_fn=max, selective_scan_cuda=object())
    assert scan._library() is max


def test_a_library_without_its_cuda_part_is_not_used(monkeypatch, caplog):
    for cuda in ({}, {"selective_scan_cuda": None}):
        library(monkeypatch, selective_scan_fn=max, **cuda)
        caplog.clear()
        assert scan._library() is None
        assert "without its CUDA part" in caplog.text


@pytest.mark.parametrize("error", [
    ImportError("undefined symbol: _ZN3c105Error"), OSError("libcudart.so.13: cannot open"),
    RuntimeError("0 active drivers"),
    ModuleNotFoundError("No module named 'triton'", name="triton")])
def test_a_library_that_does_not_load_is_not_used(monkeypatch, caplog, error):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise error

    library(monkeypatch)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops", Broken("mamba_ssm.ops"))
    monkeypatch.delitem(sys.modules, "mamba_ssm.ops.selective_scan_interface")
    assert scan._library() is None and str(error) in caplog.text


def test_no_library_is_no_warning(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.delitem(sys.modules, "mamba_ssm.ops", raising=False)
    assert scan._library() is None and not caplog.text


@pytest.mark.parametrize("make", [MambaBlock, Mamba4RecBlock])
@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_that_is_none_is_refused(make, dropout):
    with pytest.raises(ValueError, match=f"dropout={dropout}: expected a number"):
        make(16, dropout=dropout)
