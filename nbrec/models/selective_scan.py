"""The selective state space model of Mamba (thesis section 3.3.1; Gu and Dao, 2024, section 3).

Letters: B batch, L length, D inner width (d_exp in the thesis), N state size. The state h of one
sequence is a D x N matrix, one row of N numbers for each inner dimension. Tensors with both axes
are stored as (.., N, D): the long axis last, where a processor is fastest.

The same function three times: ``selective_scan_recurrent`` reads like the equations,
``selective_scan`` is fast, with torch on any device and with compiled loops
(`selective_scan_loops`) on a CPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

CHUNK = 16  # steps between two states that are kept; more take memory, fewer take it as well


def _library() -> Callable | None:
    """mamba-ssm's scan; None where it is not installed, or where its CUDA part does not load."""
    try:
        from mamba_ssm.ops import selective_scan_interface as library
    except Exception as error:  # built for another torch, another CUDA, no triton, ..
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0]
        if missing == "mamba_ssm":
            return None
        reason = str(error)
    else:
        if getattr(library, "selective_scan_cuda", None) is not None:
            return library.selective_scan_fn
        reason = "it was installed without its CUDA part"
    log.warning("mamba-ssm is here, but cannot be used (%s): the scan runs in torch, which gives "
                "the same numbers up to rounding, more slowly.", reason)
    return None


cuda_scan = _library()


def selective_scan_recurrent(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                             D: Tensor | None = None, zoh: bool = False) -> Tensor:
    """The selective SSM, written as its equations (thesis section 3.3.1; Gu and Dao, section 3.2).

        h_t = exp(delta_t A) h_(t-1) + Bbar_t u_t,    h_0 = 0
        y_t = C_t h_t + D u_t

    with Bbar_t = delta_t B_t, the reference code's step, or with ``zoh`` the exact zero-order hold
    Bbar_t = (delta_t A)^-1 (exp(delta_t A) - 1) delta_t B_t.

    Args:
        u: float (B, L, D), the input.
        delta: float (B, L, D), step sizes, > 0.
        A: float (D, N), < 0: how fast each state forgets.
        B: float (B, L, N), how the input is written into the state.
        C: float (B, L, N), how the state is read.
        D: float (D,), weight of the way around the state; none if None.
        zoh: whether B is discretised exactly.

    Returns:
        float (B, L, D): y.
    """
    h = u.new_zeros(u.shape[0], *A.T.shape)
    y = []
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(1) for x in (u, delta, B, C)), strict=True):
        h, y_t = selective_step(h, u_t, delta_t, A, B_t, C_t, D, zoh)
        y.append(y_t)
    return torch.stack(y, 1)


def selective_step(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                   D: Tensor | None = None, zoh: bool = False) -> tuple[Tensor, Tensor]:
    """One step of ``selective_scan``: h (B, N, D) and the arguments at one t -> new h, y (B, D)."""
    x = delta[:, None] * A.T
    gain = torch.expm1(x) / A.T if zoh else delta[:, None]
    h = x.exp() * h + gain * B[:, :, None] * u[:, None]
    y = (C[:, :, None] * h).sum(1)
    return h, y if D is None else y + D * u


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                   D: Tensor | None = None, zoh: bool = False) -> Tensor:
    """``selective_scan_recurrent``, fast: same arguments, same result, in at least float32.

    On CUDA mamba-ssm's kernel is used where it is installed. Otherwise the length is worked
    through in chunks. All that needs no earlier state is done for a whole chunk at once; one
    multiply-add per step remains. Only the state that enters each chunk is kept for the backward
    pass, which recomputes the others: a (B, L, D, N) tensor never exists. On a CPU a chunk is a
    compiled loop where numba is installed.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    u_, delta, A, B, C = (x.to(wide).contiguous() for x in (u, delta, A, B, C))
    with torch.autocast(u.device.type, enabled=False):
        if cuda_scan is not None and u.is_cuda and not zoh:
            y = _library_scan(cuda_scan, u_, delta, A, B, C)
        else:
            y = _SelectiveScan.apply(A.T.contiguous(), zoh, u_, delta, B, C)
        y = y if D is None else y + D * u_
    return y.to(u.dtype)


def _library_scan(kernel: Callable, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor
                  ) -> Tensor:
    """mamba-ssm's kernel, whose tensors have the length last."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return kernel(u, delta, A.contiguous(), B, C).transpose(1, 2)


def _compiled_loops() -> ModuleType | None:
    """None without numba, which is loaded by the first scan: it takes as long as all models do."""
    from nbrec.models import selective_scan_loops as loops

    return None if loops.njit is None else loops


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, A, zoh, u, delta, B, C):
        ctx.zoh = zoh
        ctx.loops = loops = None if zoh or u.device.type != "cpu" else _compiled_loops()
        y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
        entering = u.new_zeros(len(u), math.ceil(u.shape[1] / CHUNK) + 1, *A.shape)
        if loops:
            loops.in_threads(partial(loops.forward, CHUNK), A, u, delta, B, C, y, entering)
        else:
            _forward(A, zoh, u, delta, B, C, y, entering)
        ctx.save_for_backward(A, u, delta, B, C, entering)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        A, *saved = ctx.saved_tensors
        loops = ctx.loops
        grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in saved[:-1]]
        tensors = *saved, grad_y.contiguous(), *grads
        if loops:
            grad_A = sum(loops.in_threads(partial(loops.backward, CHUNK), A, *tensors))
        else:
            grad_A = _backward(A, ctx.zoh, *tensors)
        return grad_A, None, *grads


def _forward(A: Tensor, zoh: bool, u: Tensor, delta: Tensor, B: Tensor, C: Tensor,
             y: Tensor, entering: Tensor) -> None:
    """Fill in y (B, L, D) and the states (B, K + 1, N, D) that enter the K chunks."""
    chunk = _Chunk(A, u, zoh)
    for number, part in enumerate(chunk.parts):
        u_, delta_, B_, C_ = _time_first(part, u, delta, B, C)
        _, states, _ = chunk.states(entering[:, number], u_, delta_, B_)
        y[:, part] = (C_[:, :, None] @ states[1:])[:, :, 0].transpose(0, 1)
        entering[:, number + 1] = states[-1]


def _backward(A: Tensor, zoh: bool, u: Tensor, delta: Tensor, B: Tensor, C: Tensor,
              entering: Tensor, grad_y: Tensor, grad_u: Tensor, grad_delta: Tensor, grad_B: Tensor,
              grad_C: Tensor) -> Tensor:
    """Fill in the gradients; return that of A."""
    chunk = _Chunk(A, u, zoh)
    grad_A = torch.zeros_like(A)
    carried = torch.zeros_like(entering[:, 0])  # a_(t+1) dloss/dh_(t+1)
    for number, part in reversed(list(enumerate(chunk.parts))):
        u_, delta_, B_, C_, dy = _time_first(part, u, delta, B, C, grad_y)
        a, states, gain = chunk.states(entering[:, number], u_, delta_, B_)
        dh = torch.mul(dy[:, :, None], C_[..., None], out=chunk.buffer("dh", len(a)))
        dh[-1] += carried
        after, *rest = reversed(dh.unbind())
        for dh_t, a_after in zip(rest, reversed(a.unbind()[1:]), strict=True):
            after = dh_t.addcmul_(a_after, after)
        torch.mul(a[0], dh[0], out=carried)
        grad_C[:, part] = (states[1:] @ dy[..., None])[..., 0].transpose(0, 1)
        dx = states[:-1].mul_(a).mul_(dh)  # x = delta A, the exponent of a
        if zoh:
            dgain = dh * u_[:, :, None] * B_[..., None]
            dx += dgain * a / A
            grad_A -= (dgain * gain).sum((0, 1)) / A
            dh *= gain
        write = (B_[:, :, None] @ dh)[:, :, 0]
        written = u_ if zoh else delta_ * u_
        grad_B[:, part] = (dh @ written[..., None])[..., 0].transpose(0, 1)
        grad_u[:, part] = (write if zoh else write * delta_).transpose(0, 1)
        ddelta = torch.mul(dx, A, out=dh).sum(2)
        grad_delta[:, part] = (ddelta if zoh else ddelta.addcmul_(write, u_)).transpose(0, 1)
        grad_A += dx.mul_(delta_[:, :, None]).sum((0, 1))
    return grad_A


class _Chunk:
    """How the length is cut into parts, and what a part is computed in.

    The buffers are used again by every part: fresh memory would cost more than the arithmetic.
    """

    def __init__(self, A: Tensor, u: Tensor, zoh: bool):
        self.A, self.zoh = A, zoh
        self.parts = [slice(t, t + CHUNK) for t in range(0, u.shape[1], CHUNK)]
        self.shape = (CHUNK + 1, len(u), *A.shape)
        self.buffers: dict[str, Tensor] = {}

    def buffer(self, name: str, length: int) -> Tensor:
        if name not in self.buffers:
            self.buffers[name] = self.A.new_empty(self.shape)
        return self.buffers[name][:length]

    def states(self, h: Tensor, u: Tensor, delta: Tensor, B: Tensor
               ) -> tuple[Tensor, Tensor, Tensor]:
        """Decays (T, B, N, D), states (T + 1, B, N, D) from h on, and gains of a part."""
        x = torch.mul(delta[:, :, None], self.A, out=self.buffer("a", len(u)))
        states = self.buffer("h", len(u) + 1)
        states[0] = h
        if self.zoh:
            gain = torch.expm1(x) / self.A
            torch.mul(gain * B[..., None], u[:, :, None], out=states[1:])
        else:
            gain = delta[:, :, None]
            torch.mul(B[..., None], (delta * u)[:, :, None], out=states[1:])
        a = x.exp_()
        for state, a_t in zip(states.unbind()[1:], a.unbind(), strict=True):
            h = state.addcmul_(a_t, h)
        return a, states, gain


def _time_first(part: slice, *tensors: Tensor) -> list[Tensor]:
    """(B, L, ..) -> the part's (T, B, ..)."""
    return [x[:, part].transpose(0, 1).contiguous() for x in tensors]
