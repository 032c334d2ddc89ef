"""Formulas against the models themselves: their weights, what torch keeps, counts and allocates."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nbrec import losses
from nbrec.book import budget
from nbrec.book.budget import Size
from nbrec.models import selective_scan, selective_scan_loops
from nbrec.models.fusion import EarlyFusion
from nbrec.recommenders import MODELS

SMALL = {"n_items": 70, "d_model": 64, "d_ff": 96, "n_heads": 4, "d_conv": 5, "d_state": 6}
BACKBONES = ("transformer", "mamba", "xlstm")  # those of the thesis
SIZES = [Size(name, **SMALL, contexts=widths) for name in BACKBONES for widths in ((), (24, 40))]


def net(size, max_length=200):
    own = {"transformer": ("n_heads", "d_ff"), "mamba": ("d_state", "d_conv", "expand"),
           "xlstm": ("n_heads", "expand")}[size.backbone]
    torch.manual_seed(0)
    made = MODELS[size.backbone].build(size.n_items, max_length=max_length, **{
        name: getattr(size, name) for name in ("d_model", "n_layers", *own)})
    if size.contexts:
        made.early = EarlyFusion({f"c{c}": torch.randn(size.n_items, c) for c in size.contexts},
                                 size.d_model)
    return made.train()


def name(size):
    return f"{size.backbone}{'+' * len(size.contexts)}"


@pytest.mark.parametrize("size", SIZES, ids=name)
def test_parameters_are_those_of_the_model(size):
    for layers in (1, 3):
        made, counts = net(replace(size, n_layers=layers)), budget.parameters(
            replace(size, n_layers=layers))
        assert sum(counts.values()) == sum(p.numel() for p in made.parameters())
        assert counts["blocks"] == sum(p.numel() for p in made.blocks.parameters())
        early = made.early.parameters() if size.contexts else []
        assert counts["fusion"] == sum(p.numel() for p in early)


def test_the_thesis_sizes():
    """13,318 films of width 512 twice, and the films' biases: 13,650,950; blocks by hand."""
    blocks = 2 * (4 * 512**2 + 2 * 512 * 2048 + 2048 + 512 + 4 * 512)
    assert sum(budget.parameters(Size("transformer")).values()) == 13_650_950 + blocks


@pytest.mark.parametrize("size", SIZES, ids=name)
def test_what_the_forward_pass_keeps(size):
    """Exact for attention; gates and masks of the others are rounded in the formula."""
    length, made, found = 128, net(size), {}
    still = {t.untyped_storage().data_ptr() for t in (*made.parameters(), *made.buffers())}

    def save(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in still:
            found[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        out = made(torch.randint(0, size.n_items, (8, length)))
    assert out.requires_grad
    numbers = sum(nbytes for nbytes, _ in found.values()) / 4 / 8 / length
    paper = sum(v for kinds in budget.kept(size, length).values()
                for kind, v in kinds.items() if kind != "copy")
    assert paper == pytest.approx(numbers, rel=1e-12 if size.backbone == "transformer" else 0.01)


@pytest.mark.parametrize("length", [40, 128])
@pytest.mark.parametrize("size", SIZES, ids=name)
def test_operations_are_those_that_torch_counts(size, length):
    """Convolutions apart: torch's count for their backward pass does not know channel groups."""
    made, items = net(size), torch.randint(0, size.n_items, (2, length))
    counted = {}
    with sdpa_kernel(SDPBackend.MATH):
        for backward in (False, True):
            with FlopCounterMode(display=False) as counter:
                out = made.output(made(items)).sum()
                if backward:
                    out.backward()
            by_kind = counter.get_flop_counts()["Global"]
            counted[backward] = sum(v for kind, v in by_kind.items() if "conv" not in str(kind))
    inner = size.expand * size.d_model
    conv = 2 * 2 * inner * size.d_conv if size.backbone == "mamba" else 0
    paper = (sum(budget.flops(size, length).values()) - conv) * 2 * length
    assert counted[False] == pytest.approx(paper, rel=1e-12)
    assert counted[True] == pytest.approx(3 * paper, rel=1e-12)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_memory_of_a_real_step(backbone, groups):
    """Large enough for activations to outweigh all else."""
    size = Size(backbone, n_items=500, d_model=64, d_ff=256)
    made = budget.step(net(size, 90), 32, 90, groups)
    paper = budget.memory(size, 32, 90, groups)
    standing = sum(paper[k] for k in ("weights", "weights of the best epoch", "moments of AdamW"))
    assert made["parameters"] * 16 == standing
    assert made["bytes"] == pytest.approx(sum(paper.values()) - standing, rel=0.15)
    assert made["finite"] and made["loss"] == pytest.approx(np.log(500), rel=0.15)


def test_memory_terms_by_hand():
    """Width 2, one head, d_ff 3, one block, 5 films; 4 sequences of 6 in 2 groups: 12 positions."""
    size = Size("transformer", n_items=5, d_model=2, n_layers=1, n_heads=1, d_ff=3)
    weights = 2 * 5 * 2 + 5 + (4 * 4 + 2 * 6 + 3 + 2 + 8)
    wide = budget.memory(size, 4, 6, groups=2)
    assert wide["weights"] == 4 * weights == wide["gradients"]
    assert wide["moments of AdamW"] == 8 * weights
    # Half: input, q, k, v, heads, input of FF (6 x 2), ReLU (3); masks 2 x 2; two norms' inputs
    # and statistics (4 + 4), one number per head.
    assert wide["kept by: blocks"] == 12 * 4 * (15 + 4 + 9)
    assert wide["kept by: first and last layer"] == 12 * 4 * (2 + 2)
    assert wide["loss"] == 4 * (2 * 12 * 2 + 2 * 10 + 12 * 5)  # hidden, W twice, logits
    mixed = budget.memory(size, 4, 6, groups=2, device="cuda", mixed=True)
    assert mixed["kept by: blocks"] == 12 * (2 * 15 + 4 + 4 * 9)
    assert mixed["half copies of weights"] == 2 * (weights - 10)
    assert mixed["loss"] == 4 * (2 * 12 * 2 + 2 * 10) + 6 * 12 * 5
    assert "gradients" not in budget.memory(size, 4, 6)  # of one group they come after the peak


def test_logits_are_bounded(monkeypatch):
    monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", 7_000)
    size = Size("transformer", n_items=5_000, d_model=2, d_ff=2)
    made = budget.memory(size, 10, 10)["loss"]
    assert made == 4 * (2 * 100 * 2 + 2 * 10_000 + 7_000)


def test_the_largest_batch_is_the_last_that_fits():
    s = budget.Size("mamba")
    n = budget.largest(s, 90)
    fits = [sum(budget.memory(s, k, 90, 1, "cuda", mixed=True).values()) <= 15e9
            for k in (n, n + 1)]
    assert fits == [True, False] and n > 100


def test_an_estimate_by_hand():
    made = budget.estimate(budget.Size("transformer"), 65.0, 1000, (0.1, 0.5), 20, 200)
    assert made["s an epoch, least"] == pytest.approx(2) and made["most"] == pytest.approx(10)
    assert made["hours, most"] == pytest.approx(10 * 20 * 10 / 3600)
    scan = budget.estimate(budget.Size("mamba"), 65.0, 1000, (0.1, 0.5), 20, 200)["of it the scan"]
    assert scan == pytest.approx(4 * 41 * 2 * 1024 * 16 * 1000 / 320e9)


class Traffic(TorchDispatchMode):
    """Counts the numbers that operations read and write; a repeated one counts once."""

    VIEWS = ("detach", "empty", "expand", "new_empty", "new_empty_strided", "permute", "select",
             "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
             "_unsafe_view")

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func.__name__.split(".")[0] not in self.VIEWS:
            read = {name: value for name, value in kwargs.items() if name != "out"}
            self.numbers += sum(
                math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride)
                for t in tree_leaves((args, read, made)) if isinstance(t, torch.Tensor))
        return made


def test_how_often_the_scan_touches_its_states(monkeypatch):
    monkeypatch.setattr(selective_scan_loops, "njit", None)
    batch, length, inner, states = 4, 96, 128, 16
    u, delta, B, C = (torch.rand(batch, length, width).requires_grad_()
                      for width in (inner, inner, states, states))
    A = (-torch.rand(inner, states)).requires_grad_()
    with Traffic() as traffic:
        selective_scan.selective_scan(u, delta, A, B, C).sum().backward()
    passes = traffic.numbers / (batch * length * inner * states)
    assert round(passes) == budget.SCAN_PASSES
