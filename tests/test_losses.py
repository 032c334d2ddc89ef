"""What the chunked loss must not do: work for nothing, or give a wrong second derivative."""

import math

import pytest
import torch

from nbrec import losses


def example():
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 4).double(), torch.randn(13, 4).double().requires_grad_()
    bias = torch.randn(13).double().requires_grad_()
    return hidden, weight, bias, torch.randint(0, 13, (9,))


def test_no_gradient_is_made_where_none_is_asked_for(monkeypatch):
    """A parameter says that it needs a gradient even under no_grad; validation must not pay."""
    arguments = example()
    products = []
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda self, *a: products.append(a) or self)
    with torch.no_grad():
        quiet = losses.chunked_cross_entropy(*arguments)
    assert not products and not quiet.requires_grad
    assert quiet.item() == pytest.approx(losses.cross_entropy(*arguments).item(), rel=1e-12)
    losses.chunked_cross_entropy(*arguments)
    assert products  # so the first assertion could have failed


def test_a_second_derivative_is_refused():
    hidden, weight, bias, targets = example()
    loss = losses.chunked_cross_entropy(hidden, weight, bias, targets) ** 2
    (grad,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_many_rows_in_uneven_chunks(monkeypatch):
    monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", 13 * 4)  # 9 rows as 4 + 4 + 1
    arguments = example()
    plain = torch.autograd.grad(3 * losses.cross_entropy(*arguments), arguments[1:3])
    chunked = torch.autograd.grad(3 * losses.chunked_cross_entropy(*arguments), arguments[1:3])
    for a, b in zip(plain, chunked, strict=True):
        assert torch.allclose(a, b, atol=1e-12) and a.abs().max() > 0.1


def test_half_precision_adds_its_chunks_up(monkeypatch):
    hidden, weight, bias, targets = (x.float() if x.is_floating_point() else x for x in example())
    grads = []
    for chunk in (10**6, 13 * 2):  # in one piece, and two rows at a time
        monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", chunk)
        w = weight.detach().clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = losses.chunked_cross_entropy(hidden, w, bias.detach(), targets)
        loss.backward()
        grads.append((loss.item(), w.grad))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-3)
    assert torch.allclose(grads[0][1], grads[1][1], atol=0.03) and grads[0][1].abs().max() > 0.5


def test_bpr_by_hand():
    positive, negative = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 3.0, 4.0])
    expected = math.log(1 + math.exp(-0.5)) + math.log(1 + math.e) + math.log(2)
    assert losses.bpr(positive, negative).item() == pytest.approx(expected, rel=1e-6)
    assert losses.bpr(torch.tensor([0.0]), torch.tensor([1e4])).item() == 1e4


def test_single_precision_stays_single():
    """No half precision where nobody asked for it, forwards and backwards."""
    arguments = [x.detach().float().requires_grad_() if x.is_floating_point() else x
                 for x in example()]
    plain, chunked = (loss(*arguments) for loss in (losses.cross_entropy,
                                                    losses.chunked_cross_entropy))
    assert plain.item() == pytest.approx(chunked.item(), rel=1e-6)
    for a, b in zip(*(torch.autograd.grad(3 * loss, arguments[:3]) for loss in (plain, chunked)),
                    strict=True):
        assert torch.allclose(a, b, atol=1e-5) and a.abs().max() > 0.1


def test_no_gradient_is_made_of_what_needs_none(monkeypatch):
    products = []
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda self, *a: products.append(a) or self)
    losses.chunked_cross_entropy(*(x.detach() for x in example()))
    assert not products


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


def test_no_tensor_holds_all_logits(monkeypatch):
    monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", 13 * 4)
    hidden, weight, bias, _ = example()
    targets = torch.randint(0, 13, (90,))
    with Largest() as watch:
        losses.chunked_cross_entropy(hidden.repeat(10, 1), weight, bias, targets).backward()
    assert watch.numel == 90 * 4  # the inputs; 13 * 90 logits in one piece would be more


def test_half_weights_have_their_gradients_added_up_in_single_precision(monkeypatch):
    """One row at a time: in bfloat16 a sum of hundreds would stop growing."""
    monkeypatch.setitem(losses.CHUNK_LOGITS, "cpu", 1)
    hidden, targets = torch.ones(1000, 2), torch.zeros(1000, dtype=torch.long)
    weight = torch.zeros(3, 2, dtype=torch.bfloat16, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses.chunked_cross_entropy(hidden, weight, bias, targets).backward()
    expected = torch.tensor([-2000 / 3, 1000 / 3, 1000 / 3])
    assert torch.allclose(bias.grad.float(), expected, rtol=0.01)
    assert torch.allclose(weight.grad.float(), expected[:, None].expand(3, 2), rtol=0.01)


def test_no_target_is_no_loss_and_no_gradient():
    hidden = torch.randn(0, 4, requires_grad=True)
    weight, bias = torch.randn(5, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    loss = losses.chunked_cross_entropy(hidden, weight, bias, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and weight.grad.abs().sum() == 0 and bias.grad.abs().sum() == 0
    assert hidden.grad.shape == (0, 4)
