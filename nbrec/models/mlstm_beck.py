"""The mLSTM block as its authors have it (Beck et al., 2024, figure 11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks
from nbrec.models.causal_conv import CausalConv1d
from nbrec.models.mlstm import State, inner_width, mlstm_chunkwise, mlstm_step, slow_gates


class BeckMLSTMBlock(nn.Module):
    """One mLSTM block of Beck et al. Unlike the thesis's (``MLSTMBlock``) it has a convolution
    before queries and keys, block-diagonal projections, gates from (q, k, v), a norm per head, a
    learnable skip, and SiLU(z) in the place of the output gate.

    Args:
        d_model, n_heads, expand, dropout: as in ``MLSTMBlock``; errors, too.
        d_conv: width of the convolution.
    """

    def __init__(self, d_model: int, n_heads: int = 8, expand: int = 2, dropout: float = 0.1,
                 d_conv: int = 4):
        super().__init__()
        checks.whole("d_conv", d_conv, low=1)
        d_inner = inner_width(d_model, n_heads, expand, dropout)
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.z_proj = nn.Linear(d_model, d_inner, bias=False)
        self.qkv_proj = nn.ModuleList(_BlockDiagonal(d_inner) for _ in range(3))
        self.conv1d = CausalConv1d(d_inner, d_conv)
        self.head_norm = nn.Parameter(torch.ones(d_inner))
        self.skip = nn.Parameter(torch.ones(d_inner))
        self.if_gate = slow_gates(3 * d_inner, n_heads)

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        y = self.norm(x)
        inner = self.in_proj(y)
        mixed = F.silu(self.conv1d(inner))
        q, k, v, i, f = (a.transpose(1, 2) for a in self._cell_inputs(inner, mixed))
        return self._output(x, y, mixed, mlstm_chunkwise(q, k, v, i, f).transpose(1, 2))

    def step(self, x: Tensor, state: tuple[Tensor, State] | None = None
             ) -> tuple[Tensor, tuple[Tensor, State]]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state.

        The state holds the last inputs of the convolution, and C, n and m of every head.
        """
        window, cell = state or (None, None)
        y = self.norm(x)
        inner = self.in_proj(y)
        mixed, window = self.conv1d.step(inner, window)
        mixed = F.silu(mixed)
        q, k, v, i, f = self._cell_inputs(inner, mixed)
        h, cell = mlstm_step(q, k, v, i, f, cell)
        return self._output(x, y, mixed, h), (window, cell)

    def _cell_inputs(self, inner: Tensor, mixed: Tensor) -> tuple[Tensor, ...]:
        """q, k, v (.., H, D_head) and i, f (.., H) of (.., D_inner)."""
        qkv = [w(a) for w, a in zip(self.qkv_proj, (mixed, mixed, inner), strict=True)]
        gates = self.if_gate(torch.cat(qkv, -1)).chunk(2, -1)
        return *(a.unflatten(-1, (self.n_heads, -1)) for a in qkv), *gates

    def _output(self, x: Tensor, y: Tensor, mixed: Tensor, h: Tensor) -> Tensor:
        """From the cell's h (.., H, D_head) to the block's output (.., D)."""
        h = F.layer_norm(h, h.shape[-1:]).flatten(-2) * self.head_norm + self.skip * mixed
        return x + self.dropout(self.out_proj(h * F.silu(self.z_proj(y))))


class _BlockDiagonal(nn.Module):
    """A linear map whose matrix has blocks of 4 x 4 on the diagonal and zeros elsewhere."""

    def __init__(self, width: int, block: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width // block, block, block) * block**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, self.weight.shape[:2])
        return torch.einsum("...gi,goi->...go", x, self.weight).flatten(-2)
