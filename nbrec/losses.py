"""Cross-entropy over the whole catalogue, in bounded memory, and the loss of graph models."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits of one chunk: small enough to stay in a CPU's cache, large enough for a fast product.
CHUNK_LOGITS = {"cpu": 4_000_000, "cuda": 64_000_000}


def cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Summed cross-entropy of the next item, written plainly (thesis eq. 1.5, 3.5 and 3.7).

        z = h W' + b,   loss = sum of -log softmax(z)_target

    Args:
        hidden: float (T, D), one row per position that has a target.
        weight: float (V, D).
        bias: float (V,), or None.
        targets: int64 (T,), catalogue indices; T may be 0.

    Returns:
        A scalar, in nats; divide by T for the mean.
    """
    return F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """``cross_entropy`` without ever holding all logits.

    A T x V matrix of logits is the largest object of training by far: 128 sequences of 90 items
    and 13,318 films need 614 MB, and twice that with its gradient. The gradient of a row needs
    that row's logits alone,

        dloss/dz = softmax(z) - onehot(target),   dh = dz W,   dW = dz' h,   db = sum of dz,

    so it is formed at once, chunk of rows by chunk, while the logits are still in cache.

    Arguments and result as in ``cross_entropy``. Under autocast the two products run in the
    autocast type, softmax and sums in float32.
    """
    # Under no_grad a parameter still says that it needs a gradient: ask the mode, not the tensor.
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, torch.is_grad_enabled())


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Summed Bayesian personalised ranking loss (thesis eq. 3.16; Rendle et al., 2009).

        loss = sum of -log sigmoid(y_ui - y_uj)

    Args:
        positive: float (T,), y_ui, scores of items that the users have seen.
        negative: float (T,), y_uj, scores of items that they have not.

    Returns:
        A scalar, in nats; divide by T for the mean.
    """
    return F.softplus(negative - positive).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, grad_mode):
        device = hidden.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        wide = torch.float32 if half else weight.dtype
        need = grad_mode and any(ctx.needs_input_grad[:3])
        with torch.autocast(device, enabled=False):
            h, w = (hidden.to(half), weight.to(half)) if half else (hidden, weight)
            loss = torch.zeros((), dtype=wide, device=hidden.device)
            grad_h = torch.empty_like(hidden) if need else None
            grad_w = torch.zeros_like(weight, dtype=wide) if need else None
            grad_b = torch.zeros_like(bias, dtype=wide) if need and bias is not None else None
            # One buffer for all chunks: fresh pages would cost as much as the product itself.
            rows = max(1, min(len(h), CHUNK_LOGITS.get(device, CHUNK_LOGITS["cuda"]) // len(w)))
            buffer = torch.empty(rows, len(w), dtype=wide, device=hidden.device)
            for start in range(0, len(h), rows):
                part = slice(start, start + rows)
                z = buffer[: len(h[part])]
                if half:
                    z.copy_(h[part] @ w.T)
                else:
                    torch.mm(h[part], w.T, out=z)
                if bias is not None:
                    z += bias
                loss += _softmax_(z, targets[part, None])
                if grad_h is None or grad_w is None:
                    continue
                z.scatter_add_(1, targets[part, None], z.new_full((len(z), 1), -1.0))
                if grad_b is not None:
                    grad_b += z.sum(0)
                if half:
                    z = z.to(half)
                    grad_w += z.T @ h[part]
                else:
                    grad_w.addmm_(z.T, h[part])
                grad_h[part] = z @ w
        if need:
            ctx.save_for_backward(grad_h, grad_w, grad_b)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad_h, grad_w, grad_b = ctx.saved_tensors
        return (grad_h * grad, grad_w * grad, None if grad_b is None else grad_b * grad, None,
                None)


def _softmax_(z: Tensor, target: Tensor) -> Tensor:
    """Turn logits into probabilities in place; return the summed -log p of the targets."""
    chosen = z.gather(1, target)
    highest = z.amax(1, keepdim=True)
    total = z.sub_(highest).exp_().sum(1, keepdim=True)
    z /= total
    return (total.log() + highest - chosen).sum()
