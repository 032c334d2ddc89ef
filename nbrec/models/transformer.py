"""The Transformer block and its positions (thesis section 3.2; Vaswani et al., 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks


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
        ValueError: a size is no whole number of 1 or more, n_heads does not divide d_model, or
            dropout is out of its range.
    """

    def __init__(self, d_model: int, n_heads: int = 8, d_ff: int | None = None,
                 dropout: float = 0.1):
        super().__init__()
        checks.whole("d_model", d_model, low=1)
        checks.whole("n_heads", n_heads, low=1)
        checks.whole("d_ff", d_ff, low=1, none=True)
        checks.number("dropout", dropout, low=0, below=1)
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
        return self._after_attention(h, self.attention(self._before_attention(h)))

    def with_weights(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``, and the weights that it used: float (B, H, L, L), as one plots them.

        Row i of a head holds how much item i attends to items 0..i, and sums to 1. The output is
        made of these very weights, which takes memory that grows with L x L.
        """
        q, k, v = self._heads(self._before_attention(h))
        weights = self._weights(q, k)
        heads = self.w_o((weights @ v).transpose(1, 2).flatten(2))
        return self._after_attention(h, heads), weights

    def step(self, h: Tensor, state: tuple[Tensor, Tensor] | None = None
             ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for one more item: float (B, D) and the last state -> (B, D), new state.

        The state holds keys and values of all items so far, so it grows by one row an item.
        """
        heads, state = self._attend(self._before_attention(h), state)
        return self._after_attention(h, heads), state

    def _before_attention(self, h: Tensor) -> Tensor:
        """What queries, keys and values are made of."""
        return h

    def _after_attention(self, h: Tensor, heads: Tensor) -> Tensor:
        """The rest of the block: its input h and the output of MHA, (.., D) each -> (.., D)."""
        a = self.norm_attention(h + self.dropout(heads))
        ff = self.w_2(F.relu(self.w_1(a)))
        return self.norm_ff(a + self.dropout(ff))

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

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        """SoftMax(Q K' / sqrt(d_k) + MASK), the weights that ``attention`` never holds."""
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (scores + causal_mask(q.shape[2]).to(scores)).softmax(-1)

    def _heads(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K, V of all heads, each (B, H, L, d_k)."""
        b, length, d = h.shape
        qkv = self.w_qkv(h).view(b, length, 3, self.n_heads, d // self.n_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)


class PreNormBlock(TransformerBlock):
    """The same block with the norms inside: H + MHA(LayerNorm(H)), then A + FF(LayerNorm(A)).

    What comes out needs a LayerNorm before the output layer. See Xiong et al. (2020).
    """

    def _before_attention(self, h: Tensor) -> Tensor:
        return self.norm_attention(h)

    def _after_attention(self, h: Tensor, heads: Tensor) -> Tensor:
        a = h + self.dropout(heads)
        return a + self.dropout(self.w_2(self.dropout(F.relu(self.w_1(self.norm_ff(a))))))
