"""The Mamba block (thesis section 3.3; Gu and Dao, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks
from nbrec.models.causal_conv import CausalConv1d
from nbrec.models.selective_scan import selective_scan, selective_step


class MambaBlock(nn.Module):
    """One Mamba block (thesis section 3.3.1; Gu and Dao, section 3.4).

        X^ = LayerNorm(X)
        Z = SiLU(X^ W_z),   X~ = SiLU(Conv(X^ W_x))
        Delta_t = softplus(W_delta (W_r x~_t) + b),   B_t = W_B x~_t,   C_t = W_C x~_t
        Y = SelectiveScan(X~, Delta, A, B, C, D)
        X' = X + (Dropout(Y) * Z) W_mix                            (thesis eq. 3.10)

    Args:
        d_model: width of input and output.
        d_state: N, numbers of state of each inner dimension.
        d_conv: width of the convolution: an item sees itself and d_conv - 1 items before it.
        expand: the inner width is expand * d_model.
        dropout: probability in [0, 1).
        residual: whether X is added, as in Gu and Dao's code; eq. 3.10 itself has no such term.
        zoh: whether B is discretised exactly; see ``selective_scan_recurrent``.

    Raises:
        ValueError: a size is no whole number of 1 or more, or dropout is out of its range.
    """

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 8, expand: int = 2,
                 dropout: float = 0.1, residual: bool = True, zoh: bool = False):
        super().__init__()
        for name, value in (("d_model", d_model), ("d_state", d_state), ("d_conv", d_conv),
                            ("expand", expand)):
            checks.whole(name, value, low=1)
        checks.number("dropout", dropout, low=0, below=1)
        checks.choice("residual", residual, (False, True))
        checks.choice("zoh", zoh, (False, True))
        d_inner, rank = expand * d_model, math.ceil(d_model / 16)
        self.residual, self.zoh = residual, zoh
        self.norm = nn.LayerNorm(d_model)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)  # W_x and W_z
        self.x_proj = nn.Linear(d_inner, rank + 2 * d_state, bias=False)  # W_r, W_B and W_C
        self.dt_proj = nn.Linear(rank, d_inner)  # W_delta and b
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)  # W_mix
        self.conv1d = CausalConv1d(d_inner, d_conv)  # Conv
        self.A_log = nn.Parameter(torch.empty(d_inner, d_state))  # A = -exp(A_log) stays negative
        self.D = nn.Parameter(torch.ones(d_inner))
        self.dropout = nn.Dropout(dropout)
        self._first_values()

    @torch.no_grad()
    def _first_values(self) -> None:
        """Gu and Dao, section 3.6: A = -(1, 2, .., N), D = 1, Delta log-uniform in 0.001..0.1."""
        bound = self.conv1d.weight.shape[1] ** -0.5  # what torch gives a depthwise convolution
        self.conv1d.bias.uniform_(-bound, bound)
        self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1).log().expand_as(self.A_log))
        rank = self.dt_proj.in_features
        self.dt_proj.weight.uniform_(-(rank**-0.5), rank**-0.5)
        low, high = math.log(0.001), math.log(0.1)
        delta = (low + (high - low) * torch.rand_like(self.D)).exp()
        self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus undone

    def extra_repr(self) -> str:
        return f"residual={self.residual}, zoh={self.zoh}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        y = self.mixer(self.norm(x))
        return x + y if self.residual else y

    def mixer(self, x: Tensor) -> Tensor:
        """Everything between LayerNorm and residual, (B, L, D) -> (B, L, D)."""
        x, z = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv1d(x))
        delta, B, C = self.selection(x)
        y = selective_scan(x, delta, -self.A_log.exp(), B, C, self.D, self.zoh)
        return self.out_proj(self.dropout(y) * F.silu(z))

    def selection(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What makes the SSM selective: Delta (.., D_inner), B and C (.., N) of x (.., D_inner)."""
        n, rank = self.A_log.shape[1], self.dt_proj.in_features
        r, B, C = self.x_proj(x).split([rank, n, n], -1)
        return F.softplus(self.dt_proj(r)), B, C

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
             ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for one more item.

        Args:
            x: float (B, D).
            state: what the previous call returned; None before the first item. The last
                d_conv - 1 inputs of the convolution and the state of the SSM: its size does not
                depend on how many items went by.

        Returns:
            float (B, D), and the new state.
        """
        window, h = state or (None, x.new_zeros(len(x), *self.A_log.T.shape))
        u, z = self.in_proj(self.norm(x)).chunk(2, -1)
        u, window = self.conv1d.step(u, window)
        u = F.silu(u)
        delta, B, C = self.selection(u)
        h, y = selective_step(h, u, delta, -self.A_log.exp(), B, C, self.D, self.zoh)
        y = self.out_proj(self.dropout(y) * F.silu(z))
        return (x + y if self.residual else y), (window, h)


class Mamba4RecBlock(MambaBlock):
    """The layer of Mamba4Rec where there is one only (Liu et al., 2024).

        A = LayerNorm(Dropout(Mamba(LayerNorm(X))))
        X' = LayerNorm(A + Dropout(GELU(A W_1 + b_1) W_2 + b_2))

    Nothing of X reaches X' but through the mixer: its authors add X in stacks only. So what comes
    out need not look like the item that went in last, which matters where seen items are ranked.

    Args:
        d_model, d_state, d_conv, expand: as in ``MambaBlock``.
        dropout: behind the mixer and in the feed-forward network, none inside the mixer.
    """

    def __init__(self, d_model: int, d_state: int = 32, d_conv: int = 4, expand: int = 2,
                 dropout: float = 0.2):
        super().__init__(d_model, d_state, d_conv, expand, dropout=0.0, residual=False)
        self.w_1 = nn.Linear(d_model, 4 * d_model)
        self.w_2 = nn.Linear(4 * d_model, d_model)
        self.norm_mixer = nn.LayerNorm(d_model)
        self.norm_ff = nn.LayerNorm(d_model)
        checks.number("dropout", dropout, low=0, below=1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        return self._feed_forward(super().forward(x))

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
             ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = super().step(x, state)
        return self._feed_forward(y), state

    def _feed_forward(self, y: Tensor) -> Tensor:
        a = self.norm_mixer(self.drop(y))
        return self.norm_ff(a + self.drop(self.w_2(self.drop(F.gelu(self.w_1(a))))))
