"""The depthwise causal convolution of Mamba and of the xLSTM's block (thesis eq. 3.9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """y_t = bias + sum over k of w_k x_(t-k).

    Args:
        x: float (B, L, D); zeros stand before the first item.
        weight: float (D, W); column k weighs the item k places back.
        bias: float (D,).

    Returns:
        float (B, L, D).
    """
    channels, width = weight.shape
    x = F.pad(x, (0, 0, width - 1, 0)).transpose(1, 2)
    # As an image of height 1, because fast kernels for channels in the last place exist for
    # images only.
    y = F.conv2d(x[:, :, None], weight.flip(1)[:, None, None], bias, groups=channels)
    return y[:, :, 0].transpose(1, 2)


class CausalConv1d(nn.Module):
    """``causal_conv`` with its weights, which start uniform, as torch has them, and a bias of 0.

    Args:
        channels: D.
        d_conv: W, how many items an item sees: itself and d_conv - 1 before it.
    """

    def __init__(self, channels: int, d_conv: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, d_conv))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -(d_conv**-0.5), d_conv**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return causal_conv(x, self.weight, self.bias)

    def step(self, x: Tensor, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One more item, (B, D), and the last d_conv - 1 before it, (B, d_conv - 1, D), or None.

        Returns:
            y (B, D), and the window of the next item.
        """
        if window is None:
            window = x.new_zeros(len(x), self.weight.shape[1] - 1, x.shape[-1])
        window = torch.cat((window, x[:, None]), 1)
        return (window * self.weight.T.flip(0)).sum(1) + self.bias, window[:, 1:]
