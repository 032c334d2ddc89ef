"""The Transformer block and its positions (thesis section 3.2; Vaswani et al., 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """The positional encoding P (thesis section 3.2.1; Vaswani et al., section 3.5).

        p_t^j = sin(t / 10000^(j / d))          for even j
        p_t^j = cos(t / 10000^((j - 1) / d))    for odd j

    Args:
        length: N, how many positions.
        d_model: d, the width.

    Returns:
        float32 (N, d). Row t belongs to position t = 0..N-1.
    """
    t = torch.arange(length, dtype=torch.float64)[:, None]
    j = torch.arange(d_model)
    angle = t / 10000.0 ** ((j - j % 2) / d_model)
    return torch.where(j % 2 == 0, angle.sin(), angle.cos()).float()


def causal_mask(length: int) -> Tensor:
    """MASK (thesis eq. 3.2): 0 where i >= j, minus infinity where i < j; float32 (L, L)."""
    return torch.full((length, length), -math.inf).triu(1)


class TransformerBlock(nn.Module):
    """One encoder block with a causal mask: attention, then a feed-forward network, post-norm.

        A = LayerNorm(H + Dropout(MHA(H)))
        H' = LayerNorm(A + Dropout(FF(A)))                         (thesis eq. 3.4)
        MHA(H) = Concat(head_1, .., head_n) W_O
        head = SoftMax(Q K' / sqrt(d_k) + MASK) V
        FF(A) = ReLU(A W_1 + b_1) W_2 + b_2                        (thesis eq. 3.3)

    Padding on the right needs no mask of its own: it stands after every real item, so no real item
    attends to it.

    Args:
        d_model: width d of input and output.
        n_heads: number of heads; must divide d_model.
        d_ff: inner width of FF; 4 d by default.
        dropout: probability in [0, 1).

    Raises:
        ValueError: n_heads does not divide d_model.
    """

    def __init__(self, d_model: int, n_heads: int = 8, d_ff: int | None = None,
                 dropout: float = 0.1):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} cannot be cut into n_heads={n_heads} equal heads")
        d_ff = d_ff or 4 * d_model
        self.n_heads = n_heads
        self.w_qkv = nn.Linear(d_model, 3 * d_model, bias=False)  # W_Q, W_K, W_V of all heads
        self.w_o = nn.Linear(d_model, d_model, bias=False)
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.norm_attention = nn.LayerNorm(d_model)
        self.norm_ff = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}"  # no weight's shape tells it

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        a = self.norm_attention(h + self.dropout(self.attention(h)))
        ff = self.w_2(F.relu(self.w_1(a)))
        return self.norm_ff(a + self.dropout(ff))

    def step(self, h: Tensor, state: tuple[Tensor, Tensor] | None = None
             ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state.

        The state holds keys and values of all items so far, so it grows by one row an item.
        """
        heads, state = self._attend(h, state)
        a = self.norm_attention(h + self.dropout(heads))
        ff = self.w_2(F.relu(self.w_1(a)))
        return self.norm_ff(a + self.dropout(ff)), state

    def _attend(self, h: Tensor, state: tuple[Tensor, Tensor] | None
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """MHA of one more item, (B, D), over it and all items of the state."""
        q, k, v = self._heads(h[:, None])
        if state is not None:
            k, v = torch.cat((state[0], k), 2), torch.cat((state[1], v), 2)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.w_o(heads.flatten(1)), (k, v)

    def attention(self, h: Tensor) -> Tensor:
        """MHA, (B, L, D) -> (B, L, D), without ever holding the L x L weights."""
        q, k, v = self._heads(h)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.w_o(heads.transpose(1, 2).flatten(2))

    def attention_weights(self, h: Tensor) -> Tensor:
        """SoftMax(Q K' / sqrt(d_k) + MASK), the plain twin of ``attention`` and what one plots.

        Args:
            h: float (B, L, D).

        Returns:
            float (B, H, L, L); row i holds how much item i attends to items 0..i, and sums to 1.
        """
        q, k, _ = self._heads(h)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (scores + causal_mask(h.shape[1]).to(scores)).softmax(-1)

    def _heads(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K, V of all heads, each (B, H, L, d_k)."""
        b, length, d = h.shape
        qkv = self.w_qkv(h).view(b, length, 3, self.n_heads, d // self.n_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)


class PreNormBlock(TransformerBlock):
    """The same block with the norms inside: H + MHA(LayerNorm(H)), then A + FF(LayerNorm(A)).

    What comes out needs a LayerNorm before the output layer. See Xiong et al. (2020).
    """

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        return self._feed_forward(h + self.dropout(self.attention(self.norm_attention(h))))

    def step(self, h: Tensor, state: tuple[Tensor, Tensor] | None = None
             ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state."""
        heads, state = self._attend(self.norm_attention(h), state)
        return self._feed_forward(h + self.dropout(heads)), state

    def _feed_forward(self, a: Tensor) -> Tensor:
        return a + self.dropout(self.w_2(self.dropout(F.relu(self.w_1(self.norm_ff(a))))))
