"""The selective scan as loops that numba compiles, for CPUs; shapes as in `selective_scan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

try:
    from numba import njit
except ImportError:  # torch alone gives the same numbers up to rounding, slower
    njit = None  # type: ignore[assignment]

CACHE = 250_000  # numbers that a loop works on at once, to stay in a CPU's cache


def in_threads(function: Callable, A: Tensor, *tensors: Tensor) -> list:
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


def _rows(chunk: int, A: Tensor, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """So many sequences at a time that a chunk of them stays in the cache."""
    rows = max(1, CACHE // (chunk * A.numel()))
    yield from zip(*(x.split(rows) for x in tensors), strict=True)


def _decays(A: Tensor, delta: Tensor, out: Tensor) -> np.ndarray:
    """a = exp(delta A) of a chunk, (B, T, N, D). torch's exp is vectorised; a loop's is not."""
    shape = (*delta.shape[:2], *A.shape)
    a = out[: math.prod(shape)].view(shape)
    return torch.mul(delta[:, :, None], A, out=a).exp_().numpy()


def forward(chunk: int, A: Tensor, *tensors: Tensor) -> None:
    """``selective_scan._forward`` with the compiled loop; chunk: steps between kept states."""
    buffer = A.new_empty(max(CACHE, chunk * A.numel()))
    for u, delta, B, C, y, entering in _rows(chunk, A, *tensors):
        arrays = [x.numpy() for x in (u, delta, B, C, y, entering)]
        for number in range(entering.shape[1] - 1):
            start = number * chunk
            a = _decays(A, delta[:, start : start + chunk], buffer)
            _forward_loop(number, start, a, *arrays)


def backward(chunk: int, A: Tensor, *tensors: Tensor) -> Tensor:
    """``selective_scan._backward`` with the compiled loop; returns the gradient of A."""
    buffer = A.new_empty(max(CACHE, chunk * A.numel()))
    grad_A = torch.zeros_like(A)
    states = A.new_empty(chunk + 1, *A.shape).numpy()
    for u, delta, B, C, entering, *grads in _rows(chunk, A, *tensors):
        carried = torch.zeros_like(entering[:, 0])
        arrays = [x.numpy() for x in (A, grad_A, u, delta, B, C, entering, carried, *grads)]
        for number in reversed(range(entering.shape[1] - 1)):
            start = number * chunk
            a = _decays(A, delta[:, start : start + chunk], buffer)
            _backward_loop(number, start, a, states, *arrays)
    return grad_A


def _forward_loop(number, start, a, u, delta, B, C, y, entering):
    """Fill in y, and the state that enters the next chunk."""
    batch, length, n_states, width = a.shape
    for b in range(batch):
        h = entering[b, number + 1]
        h[:] = entering[b, number]
        for i in range(length):
            t = start + i
            written, y_t = delta[b, t] * u[b, t], y[b, t]
            y_t[:] = 0
            for n in range(n_states):
                h_n, a_n, B_n, C_n = h[n], a[b, i, n], B[b, t, n], C[b, t, n]
                for d in range(width):
                    h_n[d] = a_n[d] * h_n[d] + B_n * written[d]
                    y_t[d] += C_n * h_n[d]


def _backward_loop(number, start, a, states, A, dA, u, delta, B, C, entering, dh, dy, du, ddelta,
                   dB, dC):
    """Fill in du, ddelta, dB and dC; add to dA; carry dh on to the chunk before.

    x = delta A is the exponent of a; w = delta u is what B writes.
    """
    batch, length, n_states, width = a.shape
    for b in range(batch):
        states[0] = entering[b, number]
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
