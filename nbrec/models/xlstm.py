"""The xLSTM's cells and blocks: mLSTM and sLSTM (thesis section 3.4; Beck et al., 2024).

Letters: B batch, H heads, L length, D width of one head, T length of a chunk. i and f are gate
pre-activations: the input gate is exp(i), the forget gate sigmoid(f).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks
from nbrec.models.mamba import causal_conv

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
    for step in zip(*(x.unbind(2) for x in (q, k, v, i, f)), strict=True):
        h_t, state = mlstm_step(*step, state, normalise)
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
        form: "thesis", the block above with the normaliser of Beck et al.; "literal", as the
            thesis prints it: h_t = C_t q_t, and the residual is a learned branch
            z = LayerNorm(X) W_z (of width d_model, or the sum would have no meaning); or "beck",
            the block of Beck et al., figure 11: a convolution before queries and keys,
            block-diagonal projections, gates from (q, k, v), a norm per head, a learnable skip,
            and SiLU(z) in the place of the output gate.
        d_conv: width of the convolution of "beck".

    Raises:
        ValueError: a size is no whole number of 1 or more, n_heads does not divide the inner width,
            dropout is out of its range, or there is no such form.
    """

    def __init__(self, d_model: int, n_heads: int = 8, expand: int = 2, dropout: float = 0.1,
                 form: str = "thesis", d_conv: int = 4):
        super().__init__()
        for name, value in (("d_model", d_model), ("n_heads", n_heads), ("expand", expand),
                            ("d_conv", d_conv)):
            checks.whole(name, value, low=1)
        checks.number("dropout", dropout, low=0, below=1)
        checks.choice("form", form, ("thesis", "literal", "beck"))
        d_inner = expand * d_model
        if d_inner % n_heads:
            raise ValueError(f"the inner width {d_inner} cannot be cut into n_heads={n_heads} "
                             "equal heads")
        self.n_heads, self.form = n_heads, form
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.w_x = nn.Linear(d_model, d_inner, bias=False)
        self.w_doors = nn.Linear(d_inner, d_model, bias=False)
        if form == "beck":
            self.w_z = nn.Linear(d_model, d_inner, bias=False)
            self.w_qkv = nn.ModuleList(_BlockDiagonal(d_inner) for _ in range(3))
            self.conv_weight = nn.Parameter(torch.empty(d_inner, d_conv))
            nn.init.uniform_(self.conv_weight, -(d_conv**-0.5), d_conv**-0.5)
            self.conv_bias = nn.Parameter(torch.zeros(d_inner))
            self.head_norm = nn.Parameter(torch.ones(d_inner))
            self.skip = nn.Parameter(torch.ones(d_inner))
        else:
            self.w_qkv = nn.Linear(d_inner, 3 * d_inner, bias=False)
            self.w_o = nn.Linear(d_inner, d_inner)
        if form == "literal":
            self.w_z = nn.Linear(d_model, d_model, bias=False)
        self.w_if = nn.Linear(3 * d_inner if form == "beck" else d_inner, 2 * n_heads)
        # As in the code of Beck et al.: gates start alike for all items, and forget slowly.
        nn.init.zeros_(self.w_if.weight)
        with torch.no_grad():
            self.w_if.bias[:n_heads].normal_(0, 0.1)
            self.w_if.bias[n_heads:] = torch.linspace(3, 6, n_heads)

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, form={self.form}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        y = self.norm(x)
        inner = self.w_x(y)
        mixed = inner
        if self.form == "beck":
            mixed = F.silu(causal_conv(inner, self.conv_weight, self.conv_bias))
        *qkv, i, f = self._cell_inputs(inner, mixed)
        h = mlstm_chunkwise(*(a.transpose(1, 2) for a in (*qkv, i, f)), self.form != "literal")
        return self._output(x, y, inner, mixed, h.transpose(1, 2))

    def step(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state.

        The state holds C, n and m of every head, and for "beck" the last inputs of the
        convolution: its size does not depend on how many items went by.
        """
        window, cell = state or (None, None)
        y = self.norm(x)
        inner = self.w_x(y)
        mixed = inner
        if self.form == "beck":
            if window is None:
                window = inner.new_zeros(len(x), self.conv_weight.shape[1] - 1, inner.shape[-1])
            window = torch.cat((window, inner[:, None]), 1)
            mixed = F.silu((window * self.conv_weight.T.flip(0)).sum(1) + self.conv_bias)
            window = window[:, 1:]
        h, cell = mlstm_step(*self._cell_inputs(inner, mixed), cell, self.form != "literal")
        return self._output(x, y, inner, mixed, h), (window, cell)

    def _cell_inputs(self, inner: Tensor, mixed: Tensor) -> tuple[Tensor, ...]:
        """q, k, v (.., H, D_head) and i, f (.., H) of (.., D_inner)."""
        if self.form == "beck":
            q, k, v = (w(a) for w, a in zip(self.w_qkv, (mixed, mixed, inner), strict=True))
            gates = self.w_if(torch.cat((q, k, v), -1))
        else:
            q, k, v = self.w_qkv(inner).chunk(3, -1)
            gates = self.w_if(inner)
        q, k, v = (a.unflatten(-1, (self.n_heads, -1)) for a in (q, k, v))
        return q, k, v, *gates.chunk(2, -1)

    def _output(self, x: Tensor, y: Tensor, inner: Tensor, mixed: Tensor, h: Tensor) -> Tensor:
        """From the cell's h (.., H, D_head) to the block's output (.., D)."""
        if self.form == "beck":
            h = F.layer_norm(h, h.shape[-1:]).flatten(-2) * self.head_norm
            return x + self.dropout(self.w_doors((h + self.skip * mixed) * F.silu(self.w_z(y))))
        h = self.dropout(self.w_doors(h.flatten(-2) * self.w_o(inner).sigmoid()))
        return h + (self.w_z(y) if self.form == "literal" else x)


class _BlockDiagonal(nn.Module):
    """A linear map whose matrix has blocks of 4 x 4 on the diagonal and zeros elsewhere."""

    def __init__(self, width: int, block: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width // block, block, block) * block**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, self.weight.shape[:2])
        return torch.einsum("...gi,goi->...go", x, self.weight).flatten(-2)


class SLSTMBlock(nn.Module):
    """One sLSTM block: scalar memories that mix, then a gated network (Beck et al., section 2.2).

        z_t = tanh(z~_t),  i_t = exp(i~_t),  f_t = sigmoid(f~_t),  o_t = sigmoid(o~_t)
        (z~, i~, f~, o~)_t = W LayerNorm(x_t) + R h_(t-1) + b
        c_t = f_t c_(t-1) + i_t z_t,   n_t = f_t n_(t-1) + i_t,   h_t = o_t c_t / n_t
        y_t = x_t + Dropout(HeadNorm(h_t))
        output = y_t + Dropout(W_down (GELU(W_gate y^) * W_up y^)),   y^ = LayerNorm(y_t)

    R mixes memories within a head, so h_t needs h_(t-1) whole: nothing here is parallel in t.

    Args:
        d_model: width of input and output.
        n_heads: number of heads; must divide d_model.
        dropout: probability in [0, 1).

    Raises:
        ValueError: a size is no whole number of 1 or more, n_heads does not divide d_model, or
            dropout is out of its range.
    """

    def __init__(self, d_model: int, n_heads: int = 8, dropout: float = 0.1):
        super().__init__()
        checks.whole("d_model", d_model, low=1)
        checks.whole("n_heads", n_heads, low=1)
        checks.number("dropout", dropout, low=0, below=1)
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} cannot be cut into n_heads={n_heads} equal heads")
        width, d_ff = d_model // n_heads, math.ceil(4 * d_model / 3)
        self.n_heads = n_heads
        self.norm, self.norm_ff = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.w = nn.Linear(d_model, 4 * d_model)  # of each head: z, i, f, o
        self.r = nn.Parameter(torch.zeros(n_heads, width, 4 * width))
        self.head_norm = nn.Parameter(torch.ones(d_model))
        self.w_gate = nn.Linear(d_model, d_ff, bias=False)
        self.w_up = nn.Linear(d_model, d_ff, bias=False)
        self.w_down = nn.Linear(d_ff, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():  # forget slowly at first, at a different speed in every place
            self.w.bias.view(n_heads, 4, width)[:, 2] = torch.linspace(3, 6, width)

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        state, h = None, []
        for gates in self._gates(x).unbind(1):
            h_t, state = self._cell(gates, state)
            h.append(h_t)
        return self._output(x, torch.stack(h, 1))

    def step(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state."""
        h, state = self._cell(self._gates(x), state)
        return self._output(x, h), state

    def _gates(self, x: Tensor) -> Tensor:
        """The part of the pre-activations that does not depend on h: (.., H, 4 D_head)."""
        return self.w(self.norm(x)).unflatten(-1, (self.n_heads, -1))

    def _cell(self, gates: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """gates (B, H, 4 D_head) and (c, n, m, h), each (B, H, D_head) -> h, new state."""
        if state is None:
            zero = gates.new_zeros(*gates.shape[:-1], gates.shape[-1] // 4)
            state = (zero, zero, torch.full_like(zero, -math.inf), zero)
        c, n, m_before, h = state
        gates = gates + torch.einsum("bhi,hio->bho", h, self.r)
        z, i, f, o = gates.chunk(4, -1)
        log_f = F.logsigmoid(f)
        m = torch.maximum(log_f + m_before, i).detach()
        forget, write = (log_f + m_before - m).exp(), (i - m).exp()
        c = forget * c + write * z.tanh()
        n = forget * n + write
        h = o.sigmoid() * c / n
        return h, (c, n, m, h)

    def _output(self, x: Tensor, h: Tensor) -> Tensor:
        h = F.layer_norm(h, h.shape[-1:]).flatten(-2) * self.head_norm
        y = x + self.dropout(h)
        ff = self.norm_ff(y)
        return y + self.dropout(self.w_down(F.gelu(self.w_gate(ff)) * self.w_up(ff)))
