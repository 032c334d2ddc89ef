"""The selective state space model of Mamba (thesis section 3.3.1; Gu and Dao, 2024, section 3).

Letters: B batch, L length, D inner width (d_exp in the thesis), N state size. The state h of one
sequence is a D x N matrix, one row of N numbers for each inner dimension. Tensors with both axes
are stored as (.., N, D): the long axis last, where a processor is fastest.

The same function three times: ``selective_scan_recurrent`` reads like the equations,
``selective_scan`` is fast, with torch on any device and with compiled loops on a CPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    from numba import njit
except ImportError:  # torch alone gives the same numbers, more slowly
    njit = None

log = logging.getLogger(__name__)

CHUNK = 16  # steps between two states that are kept; more take memory, fewer take it as well
CACHE = 250_000  # numbers that a compiled loop works on at once, to stay in a CPU's cache


def _library() -> Callable | None:
    """mamba-ssm's scan; None where it is not installed, or where its CUDA part does not load."""
    try:
        from mamba_ssm.ops import selective_scan_interface as library
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mamba_ssm":
            return None
        reason = error
    except Exception as error:  # built for another torch, another CUDA, no triton, ..
        reason = error
    else:
        if getattr(library, "selective_scan_cuda", None) is not None:
            return library.selective_scan_fn
        reason = "it was installed without its CUDA part"
    log.warning("mamba-ssm is here, but cannot be used (%s): the scan runs in torch, which gives "
                "the same numbers, more slowly.", reason)
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
            y = _library_scan(u_, delta, A, B, C)
        else:
            y = _SelectiveScan.apply(A.T.contiguous(), zoh, u_, delta, B, C)
        y = y if D is None else y + D * u_
    return y.to(u.dtype)


def _library_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """mamba-ssm's kernel, whose tensors have the length last."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return cuda_scan(u, delta, A.contiguous(), B, C).transpose(1, 2)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, A, zoh, u, delta, B, C):
        ctx.zoh = zoh
        ctx.loops = njit is not None and u.device.type == "cpu" and not zoh
        y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
        entering = u.new_zeros(len(u), math.ceil(u.shape[1] / CHUNK) + 1, *A.shape)
        if ctx.loops:
            _in_threads(_forward_loops, A, u, delta, B, C, y, entering)
        else:
            _forward(A, zoh, u, delta, B, C, y, entering)
        ctx.save_for_backward(A, u, delta, B, C, entering)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        A, *saved = ctx.saved_tensors
        grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in saved[:-1]]
        tensors = *saved, grad_y.contiguous(), *grads
        if ctx.loops:
            grad_A = sum(_in_threads(_backward_loops, A, *tensors))
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


def _in_threads(function: Callable, A: Tensor, *tensors: Tensor) -> list:
    """Call ``function`` on parts of the batch, each in a thread; return what the calls return.

    The loops release Python's lock, and a thread that has a part of the batch for itself waits
    for the others once, at the end.
    """
    usual = torch.get_num_threads()
    workers = min(usual, len(tensors[0]))
    parts = list(zip(*(x.detach().tensor_split(workers) for x in tensors), strict=True))
    if workers == 1:
        return [function(A.detach(), *parts[0])]
    inference = torch.is_inference_mode_enabled()

    def alone(part):
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to a thread
            return function(A.detach(), *part)

    # set_num_threads binds the thread that calls it, and threads that start later.
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(usual)


def _rows(A: Tensor, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """So many sequences at a time that a chunk of them stays in the cache."""
    rows = max(1, CACHE // (CHUNK * A.numel()))
    yield from zip(*(x.split(rows) for x in tensors), strict=True)


def _decays(A: Tensor, delta: Tensor, out: Tensor) -> np.ndarray:
    """a = exp(delta A) of a chunk, (B, T, N, D). torch's exp is vectorised; a loop's is not."""
    shape = (*delta.shape[:2], *A.shape)
    a = out[: math.prod(shape)].view(shape)
    return torch.mul(delta[:, :, None], A, out=a).exp_().numpy()


def _forward_loops(A: Tensor, *tensors: Tensor) -> None:
    """``_forward`` with the compiled loop."""
    buffer = A.new_empty(max(CACHE, CHUNK * A.numel()))
    for u, delta, B, C, y, entering in _rows(A, *tensors):
        arrays = [x.numpy() for x in (u, delta, B, C, y, entering)]
        for chunk in range(entering.shape[1] - 1):
            start = chunk * CHUNK
            a = _decays(A, delta[:, start : start + CHUNK], buffer)
            _forward_loop(chunk, start, a, *arrays)


def _backward_loops(A: Tensor, *tensors: Tensor) -> Tensor:
    """``_backward`` with the compiled loop."""
    buffer = A.new_empty(max(CACHE, CHUNK * A.numel()))
    grad_A = torch.zeros_like(A)
    states = A.new_empty(CHUNK + 1, *A.shape).numpy()
    for u, delta, B, C, entering, *grads in _rows(A, *tensors):
        carried = torch.zeros_like(entering[:, 0])
        arrays = [x.numpy() for x in (A, grad_A, u, delta, B, C, entering, carried, *grads)]
        for chunk in reversed(range(entering.shape[1] - 1)):
            start = chunk * CHUNK
            a = _decays(A, delta[:, start : start + CHUNK], buffer)
            _backward_loop(chunk, start, a, states, *arrays)
    return grad_A


def _forward_loop(chunk, start, a, u, delta, B, C, y, entering):
    """Fill in y, and the state that enters the next chunk."""
    batch, length, n_states, width = a.shape
    for b in range(batch):
        h = entering[b, chunk + 1]
        h[:] = entering[b, chunk]
        for i in range(length):
            t = start + i
            written, y_t = delta[b, t] * u[b, t], y[b, t]
            y_t[:] = 0
            for n in range(n_states):
                h_n, a_n, B_n, C_n = h[n], a[b, i, n], B[b, t, n], C[b, t, n]
                for d in range(width):
                    h_n[d] = a_n[d] * h_n[d] + B_n * written[d]
                    y_t[d] += C_n * h_n[d]


def _backward_loop(chunk, start, a, states, A, dA, u, delta, B, C, entering, dh, dy, du, ddelta, dB,
                   dC):
    """Fill in du, ddelta, dB and dC; add to dA; carry dh on to the chunk before.

    x = delta A is the exponent of a; w = delta u is what B writes.
    """
    batch, length, n_states, width = a.shape
    for b in range(batch):
        states[0] = entering[b, chunk]
        for i in range(length):
            t = start + i
            w = delta[b, t] * u[b, t]
            for n in range(n_states):
                before, after, a_n, B_n = states[i, n], states[i + 1, n], a[b, i, n], B[b, t, n]
                for d in range(width):
                    after[d] = a_n[d] * before[d] + B_n * w[d]
        for i in range(length - 1, -1, -1):
            t = start + i
            w, delta_t, dy_t = delta[b, t] * u[b, t], delta[b, t], dy[b, t]
            dw, ddelta_t = du[b, t], ddelta[b, t]
            dw[:] = 0
            ddelta_t[:] = 0
            for n in range(n_states):
                before, after, a_n, dh_n = states[i, n], states[i + 1, n], a[b, i, n], dh[b, n]
                A_n, dA_n, B_n, C_n = A[n], dA[n], B[b, t, n], C[b, t, n]
                dB_n = dC_n = A.dtype.type(0)
                for d in range(width):
                    g = dh_n[d] + dy_t[d] * C_n
                    dC_n += dy_t[d] * after[d]
                    dB_n += g * w[d]
                    dw[d] += g * B_n
                    dh_n[d] = g * a_n[d]
                    dx = dh_n[d] * before[d]
                    ddelta_t[d] += dx * A_n[d]
                    dA_n[d] += dx * delta_t[d]
                dB[b, t, n], dC[b, t, n] = dB_n, dC_n
            for d in range(width):
                ddelta_t[d] += dw[d] * u[b, t, d]
                dw[d] *= delta_t[d]


def _compiled(loop: Callable) -> Callable:
    """The loop as machine code, kept on disk where there is a folder to write to."""
    try:
        return njit(loop, nogil=True, fastmath=True, cache=True)
    except RuntimeError:
        return njit(loop, nogil=True, fastmath=True)


if njit is not None:
    _forward_loop, _backward_loop = _compiled(_forward_loop), _compiled(_backward_loop)
