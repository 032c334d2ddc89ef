"""The xLSTM's block with scalar memories that mix (Beck et al., 2024, section 2.2).

i and f are gate pre-activations: the input gate is exp(i), the forget gate sigmoid(f).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks


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
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)  # W_gate
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)  # W_up
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)  # W_down
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
        return y + self.dropout(self.down_proj(F.gelu(self.gate_proj(ff)) * self.up_proj(ff)))
