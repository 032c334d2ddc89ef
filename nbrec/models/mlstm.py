"""The xLSTM's cell with a matrix as its memory, and the thesis's block (section 3.4.1).

Letters: B batch, H heads, L length, D width of one head, T length of a chunk. i and f are gate
pre-activations: the input gate is exp(i), the forget gate sigmoid(f).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks

CHUNK = 64  # items treated as a square; longer chunks cost memory, shorter ones more steps

State = tuple[Tensor, Tensor, Tensor]


def mlstm_recurrent(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
                    normalise: bool = True) -> Tensor:
    """The mLSTM cell, written as its recurrence (thesis eq. 3.12; Beck et al., eq. 19 to 27).

        C_t = f_t C_(t-1) + i_t v_t k_t',    n_t = f_t n_(t-1) + i_t k_t
        h_t = C_t q_t / max(|n_t' q_t|, 1)

    Args:
        q, k, v: float (B, H, L, D). k is divided by sqrt(D) inside.
        i, f: float (B, H, L).
        normalise: False leaves out the division, as the thesis does: h_t = C_t q_t.

    Returns:
        float (B, H, L, D): h.
    """
    state, h = None, []
    for q_t, k_t, v_t, i_t, f_t in zip(*(x.unbind(2) for x in (q, k, v, i, f)), strict=True):
        h_t, state = mlstm_step(q_t, k_t, v_t, i_t, f_t, state, normalise)
        h.append(h_t)
    return torch.stack(h, 2)


def mlstm_step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: State | None = None,
               normalise: bool = True) -> tuple[Tensor, State]:
    """One step of ``mlstm_recurrent``, in numbers that cannot overflow.

    exp(i) may be huge. So C and n are held divided by exp(m_t), with the stabiliser
    m_t = max(log f_t + m_(t-1), i_t); in h it cancels.

    Args:
        q, k, v, i, f: as in ``mlstm_recurrent``, without the axis L.
        state: C (B, H, D, D) with a row for each component of v, n (B, H, D), m (B, H); None
            before the first item.
        normalise: as in ``mlstm_recurrent``.

    Returns:
        h, float (B, H, D), and the new state.
    """
    k = k / math.sqrt(k.shape[-1])
    if state is None:
        state = (v.new_zeros(*v.shape, k.shape[-1]), torch.zeros_like(k),
                 torch.full_like(i, -math.inf))
    C, n, m_before = state
    log_f = F.logsigmoid(f)
    m = torch.maximum(log_f + m_before, i).detach()
    forget, write = (log_f + m_before - m).exp()[..., None], (i - m).exp()[..., None]
    C = forget[..., None] * C + write[..., None] * v[..., None] * k[..., None, :]
    n = forget * n + write * k
    h = (C @ q[..., None])[..., 0]
    return _scaled(h, (n * q).sum(-1), m, normalise), (C, n, m)


def mlstm_parallel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
                   normalise: bool = True) -> Tensor:
    """The same cell for all t at once (thesis eq. 3.13; Beck et al., appendix A.3).

        h_t = sum over j <= t of w_tj v_j / max(|sum over j <= t of w_tj|, 1)
        w_tj = (f_(j+1) .. f_t) i_j k_j'q_t

    Like attention it needs L x L weights. Arguments and result as in ``mlstm_recurrent``.
    """
    k = k / math.sqrt(k.shape[-1])
    log_w = _log_weights(i, F.logsigmoid(f).cumsum(-1))
    m = log_w.amax(-1).detach()
    w = (q @ k.transpose(-1, -2)) * (log_w - m[..., None]).exp()
    return _scaled(w @ v, w.sum(-1), m, normalise)


def mlstm_chunkwise(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
                    normalise: bool = True, chunk: int = CHUNK) -> Tensor:
    """The same cell, parallel inside chunks and recurrent between them: linear in L.

    With b_t = log(f_1 .. f_t) counted from the start of a chunk, and the state (C, n) that enters
    it, an output is the parallel form over its own chunk plus exp(b_t) C q_t. Every sum of logs
    spans one chunk only, so precision does not fall with L.

    Arguments and result as in ``mlstm_recurrent``; computed in at least float32.
    """
    dtype, length = q.dtype, q.shape[2]
    wide = torch.promote_types(dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, i, f = (x.to(wide) for x in (q, k, v, i, f))
        count = math.ceil(length / chunk)
        if count > 1:
            # Chunks of equal size; what is padded comes after every real item and is dropped.
            pad = -length % count
            q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (count, -1)) for x in (q, k, v))
            i, f = (F.pad(x, (0, pad)).unflatten(2, (count, -1)) for x in (i, f))
            h = _chunks(q, k, v, i, f, normalise).flatten(2, 3)[:, :, :length]
        else:
            h = mlstm_parallel(q, k, v, i, f, normalise)
    return h.to(dtype)


def _chunks(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, normalise: bool) -> Tensor:
    """q, k, v (B, H, K, T, D), i, f (B, H, K, T) of K chunks -> h (B, H, K, T, D)."""
    k = k / math.sqrt(k.shape[-1])
    b = F.logsigmoid(f).cumsum(-1)
    # What each chunk writes into the state that leaves it, as if it had entered empty.
    log_write = b[..., -1:] - b + i
    m_write = log_write.amax(-1).detach()
    written = k * (log_write - m_write[..., None]).exp()[..., None]
    n_new, C_new = written.sum(-2), v.transpose(-1, -2) @ written
    # The states (C, n, m) that enter the chunks, one after the other.
    C, n = torch.zeros_like(C_new[:, :, 0]), torch.zeros_like(n_new[:, :, 0])
    m = torch.full_like(m_write[:, :, 0], -math.inf)
    entering = []
    for c in range(b.shape[2]):
        entering.append((C, n, m))
        through = b[:, :, c, -1] + m
        m = torch.maximum(through, m_write[:, :, c]).detach()
        keep, add = (through - m).exp()[..., None], (m_write[:, :, c] - m).exp()[..., None]
        C = keep[..., None] * C + add[..., None] * C_new[:, :, c]
        n = keep * n + add * n_new[:, :, c]
    C, n, m = (torch.stack(x, 2) for x in zip(*entering, strict=True))
    # Outputs: own chunk (parallel form) and what entered, on one scale m_t.
    log_w = _log_weights(i, b)
    log_enter = b + m[..., None]
    m_t = torch.maximum(log_w.amax(-1), log_enter).detach()
    w = (q @ k.transpose(-1, -2)) * (log_w - m_t[..., None]).exp()
    q = q * (log_enter - m_t).exp()[..., None]
    h = w @ v + q @ C.transpose(-1, -2)
    return _scaled(h, w.sum(-1) + (q @ n[..., None])[..., 0], m_t, normalise)


def _log_weights(i: Tensor, b: Tensor) -> Tensor:
    """log((f_(j+1) .. f_t) i_j) = b_t - b_j + i_j for j <= t, minus infinity after: (.., T, T)."""
    log_w = b[..., None] + (i - b)[..., None, :]
    later = torch.ones(log_w.shape[-2:], dtype=torch.bool, device=i.device).triu(1)
    return log_w.masked_fill(later, -math.inf)


def _scaled(h: Tensor, n: Tensor, m: Tensor, normalise: bool) -> Tensor:
    """h and n = n'q, both held divided by exp(m) -> the cell's output."""
    if not normalise:
        return h * m.exp()[..., None]
    return h / torch.maximum(n.abs(), (-m).exp())[..., None]


class MLSTMBlock(nn.Module):
    """One mLSTM block (thesis section 3.4.1).

        X' = LayerNorm(X) W_x
        q_t, k_t, v_t = W_q x'_t, W_k x'_t, W_v x'_t
        i_t = exp(W_i x'_t + b_i),  f_t = sigmoid(W_f x'_t + b_f),  o_t = sigmoid(W_o x'_t + b_o)
        H = mLSTM cell, head by head
        output = X + Dropout(W_doors (H * O))

    Args:
        d_model: width of input and output.
        n_heads: number of heads; must divide the inner width.
        expand: the inner width is expand * d_model.
        dropout: probability in [0, 1).
        literal: as the thesis prints it: h_t = C_t q_t, and the residual is a learned branch
            z = LayerNorm(X) W_z (of width d_model, or the sum would have no meaning). Otherwise
            the cell has the normaliser of Beck et al.

    Raises:
        ValueError: a size is no whole number of 1 or more, n_heads does not divide the inner width,
            or dropout is out of its range.
    """

    def __init__(self, d_model: int, n_heads: int = 8, expand: int = 2, dropout: float = 0.1,
                 literal: bool = False):
        super().__init__()
        d_inner = inner_width(d_model, n_heads, expand, dropout)
        self.n_heads, self.literal = n_heads, literal
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)  # W_x
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)  # W_doors
        self.qkv_proj = nn.Linear(d_inner, 3 * d_inner, bias=False)  # W_q, W_k, W_v
        self.o_gate = nn.Linear(d_inner, d_inner)  # W_o, b_o
        if literal:
            self.z_proj = nn.Linear(d_model, d_model, bias=False)  # W_z
        self.if_gate = slow_gates(d_inner, n_heads)  # W_i, W_f, b_i, b_f

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, literal={self.literal}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        y = self.norm(x)
        inner = self.in_proj(y)
        q, k, v, i, f = (a.transpose(1, 2) for a in self._cell_inputs(inner))
        h = mlstm_chunkwise(q, k, v, i, f, not self.literal)
        return self._output(x, y, inner, h.transpose(1, 2))

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state.

        The state holds C, n and m of every head: its size does not depend on how many items went
        by.
        """
        y = self.norm(x)
        inner = self.in_proj(y)
        q, k, v, i, f = self._cell_inputs(inner)
        h, state = mlstm_step(q, k, v, i, f, state, not self.literal)
        return self._output(x, y, inner, h), state

    def _cell_inputs(self, inner: Tensor) -> tuple[Tensor, ...]:
        """q, k, v (.., H, D_head) and i, f (.., H) of (.., D_inner)."""
        qkv = (a.unflatten(-1, (self.n_heads, -1)) for a in self.qkv_proj(inner).chunk(3, -1))
        return *qkv, *self.if_gate(inner).chunk(2, -1)

    def _output(self, x: Tensor, y: Tensor, inner: Tensor, h: Tensor) -> Tensor:
        """From the cell's h (.., H, D_head) to the block's output (.., D)."""
        h = self.dropout(self.out_proj(h.flatten(-2) * self.o_gate(inner).sigmoid()))
        return h + (self.z_proj(y) if self.literal else x)


def inner_width(d_model: int, n_heads: int, expand: int, dropout: float) -> int:
    """expand * d_model, after a look at all arguments of a block; errors as in ``MLSTMBlock``."""
    for name, value in (("d_model", d_model), ("n_heads", n_heads), ("expand", expand)):
        checks.whole(name, value, low=1)
    checks.number("dropout", dropout, low=0, below=1)
    if expand * d_model % n_heads:
        raise ValueError(f"the inner width {expand * d_model} cannot be cut into "
                         f"n_heads={n_heads} equal heads")
    return expand * d_model


def slow_gates(width: int, n_heads: int) -> nn.Linear:
    """(.., width) -> i and f of every head, (.., 2 H), as in the code of Beck et al.: they start
    alike for all items, and forget slowly."""
    gates = nn.Linear(width, 2 * n_heads)
    nn.init.zeros_(gates.weight)
    with torch.no_grad():
        gates.bias[:n_heads].normal_(0, 0.1)
        gates.bias[n_heads:] = torch.linspace(3, 6, n_heads)
    return gates
