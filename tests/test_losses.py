"""What the chunked loss must not do: work for nothing, or give a wrong second derivative."""

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
