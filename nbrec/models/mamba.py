"""The Mamba block and its selective scan (thesis section 3.3; Gu and Dao, 2024).

Letters: B batch, L length, D inner width (d_exp in the thesis), N state size. The state h of one
sequence is a D x N matrix, one row of N numbers for each inner dimension. Tensors with both axes
are stored as (.., N, D): the long axis last, where a processor is fastest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as cuda_scan
except ImportError:  # needs CUDA to install; everything here works without
    cuda_scan = None

# Numbers of state held at once by one chunk: a few copies of them should fit a CPU's cache.
CHUNK_STATES = {"cpu": 500_000, "cuda": 32_000_000}


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
    """

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 8, expand: int = 2,
                 dropout: float = 0.1, residual: bool = True, zoh: bool = False):
        super().__init__()
        d_inner, rank = expand * d_model, math.ceil(d_model / 16)
        self.residual, self.zoh = residual, zoh
        self.norm = nn.LayerNorm(d_model)
        self.w_xz = nn.Linear(d_model, 2 * d_inner, bias=False)  # W_x and W_z
        self.conv_weight = nn.Parameter(torch.empty(d_inner, d_conv))
        self.conv_bias = nn.Parameter(torch.empty(d_inner))
        self.w_rbc = nn.Linear(d_inner, rank + 2 * d_state, bias=False)  # W_r, W_B and W_C
        self.w_delta = nn.Linear(rank, d_inner)
        self.log_a = nn.Parameter(torch.empty(d_inner, d_state))  # A = -exp(log_a) stays negative
        self.skip = nn.Parameter(torch.ones(d_inner))  # D
        self.w_mix = nn.Linear(d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gu and Dao, section 3.6: A = -(1, 2, .., N), D = 1, Delta log-uniform in 0.001..0.1."""
        bound = self.conv_weight.shape[1] ** -0.5  # what torch gives a depthwise convolution
        self.conv_weight.uniform_(-bound, bound)
        self.conv_bias.uniform_(-bound, bound)
        self.log_a.copy_(torch.arange(1, self.log_a.shape[1] + 1).log().expand_as(self.log_a))
        rank = self.w_delta.in_features
        self.w_delta.weight.uniform_(-(rank**-0.5), rank**-0.5)
        low, high = math.log(0.001), math.log(0.1)
        delta = (low + (high - low) * torch.rand_like(self.skip)).exp()
        self.w_delta.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus undone

    def extra_repr(self) -> str:
        return f"residual={self.residual}, zoh={self.zoh}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); output t depends on inputs 0..t only."""
        y = self.mixer(self.norm(x))
        return x + y if self.residual else y

    def mixer(self, x: Tensor) -> Tensor:
        """Everything between LayerNorm and residual, (B, L, D) -> (B, L, D)."""
        x, z = self.w_xz(x).chunk(2, -1)
        x = F.silu(causal_conv(x, self.conv_weight, self.conv_bias))
        delta, B, C = self.selection(x)
        y = selective_scan(x, delta, -self.log_a.exp(), B, C, self.skip, self.zoh)
        return self.w_mix(self.dropout(y) * F.silu(z))

    def selection(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What makes the SSM selective: Delta (.., D_inner), B and C (.., N) of x (.., D_inner)."""
        n, rank = self.log_a.shape[1], self.w_delta.in_features
        r, B, C = self.w_rbc(x).split([rank, n, n], -1)
        return F.softplus(self.w_delta(r)), B, C

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
        d_inner, width = self.conv_weight.shape
        if state is None:
            state = (x.new_zeros(len(x), width - 1, d_inner),
                     x.new_zeros(len(x), self.log_a.shape[1], d_inner))
        window, h = state
        u, z = self.w_xz(self.norm(x)).chunk(2, -1)
        window = torch.cat((window, u[:, None]), 1)
        u = F.silu((window * self.conv_weight.T.flip(0)).sum(1) + self.conv_bias)
        delta, B, C = self.selection(u)
        h, y = selective_step(h, u, delta, -self.log_a.exp(), B, C, self.skip, self.zoh)
        y = self.w_mix(self.dropout(y) * F.silu(z))
        return (x + y if self.residual else y), (window[:, 1:], h)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The depthwise convolution (thesis eq. 3.9): y_t = bias + sum over k of w_k x_(t-k).

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
    pass, which recomputes the others: a (B, L, D, N) tensor never exists.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    u_, delta, A, B, C = (x.to(wide) for x in (u, delta, A, B, C))
    with torch.autocast(u.device.type, enabled=False):
        if cuda_scan is not None and u.is_cuda and not zoh:
            y = _library_scan(u_, delta, A, B, C)
        else:
            time_first = (x.transpose(0, 1).contiguous() for x in (u_, delta, B, C))
            y = _SelectiveScan.apply(A.T.contiguous(), zoh, *time_first).transpose(0, 1)
        y = y if D is None else y + D * u_
    return y.to(u.dtype)


def _library_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """mamba-ssm's kernel, whose tensors have the length last."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return cuda_scan(u, delta, A.contiguous(), B, C).transpose(1, 2)


class _SelectiveScan(torch.autograd.Function):
    """The scan over tensors with time first: u, delta (L, B, D), B, C (L, B, N), A (N, D)."""

    @staticmethod
    def forward(ctx, A, zoh, u, delta, B, C):
        chunk = _Chunk(A, u, zoh)
        y = torch.empty_like(u)
        h = u.new_zeros(u.shape[1], *A.shape)
        entering = []
        for part in chunk.parts:
            entering.append(h)
            _, states, _ = chunk.states(h, u[part], delta[part], B[part])
            y[part] = (C[part, :, None] @ states[1:])[:, :, 0]
            h = states[-1].clone()
        ctx.zoh = zoh
        ctx.save_for_backward(A, u, delta, B, C, *entering)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        A, u, delta, B, C, *entering = ctx.saved_tensors
        chunk, grad_y = _Chunk(A, u, ctx.zoh), grad_y.contiguous()
        grad_A, grad_u, grad_delta, grad_B, grad_C = map(torch.zeros_like, (A, u, delta, B, C))
        carried = torch.zeros_like(entering[0])  # a_(t+1) dloss/dh_(t+1)
        for part, h in zip(reversed(chunk.parts), reversed(entering), strict=True):
            u_, delta_, B_, C_, dy = (x[part] for x in (u, delta, B, C, grad_y))
            a, states, gain = chunk.states(h, u_, delta_, B_)
            dh = torch.mul(dy[:, :, None], C_[..., None], out=chunk.buffer("dh", len(a)))
            dh[-1] += carried
            for t in reversed(range(len(dh) - 1)):
                dh[t].addcmul_(a[t + 1], dh[t + 1])
            torch.mul(a[0], dh[0], out=carried)
            grad_C[part] = (states[1:] @ dy[..., None])[..., 0]
            dx = states[:-1].mul_(a).mul_(dh)  # x = delta A, the exponent of a
            if chunk.zoh:
                dgain = dh * u_[:, :, None] * B_[..., None]
                dx += dgain * a / A
                grad_A -= (dgain * gain).sum((0, 1)) / A
                dh *= gain
            write = (B_[:, :, None] @ dh)[:, :, 0]
            grad_B[part] = (dh @ (u_ if chunk.zoh else delta_ * u_)[..., None])[..., 0]
            grad_u[part] = write if chunk.zoh else write * delta_
            torch.sum(torch.mul(dx, A, out=dh), 2, out=grad_delta[part])
            if not chunk.zoh:
                grad_delta[part].addcmul_(write, u_)
            grad_A += dx.mul_(delta_[:, :, None]).sum((0, 1))
        return grad_A, None, grad_u, grad_delta, grad_B, grad_C


class _Chunk:
    """How the length is cut into parts, and what a part is computed in.

    The buffers are used again by every part: fresh memory would cost more than the arithmetic.
    """

    def __init__(self, A: Tensor, u: Tensor, zoh: bool):
        length, batch = u.shape[:2]
        limit = CHUNK_STATES.get(u.device.type, CHUNK_STATES["cuda"])
        self.size = min(length, max(1, limit // max(1, batch * A.numel())))
        self.parts = [slice(t, t + self.size) for t in range(0, length, self.size)]
        self.A, self.zoh = A, zoh
        self.shape = (self.size + 1, batch, *A.shape)
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
        for t in range(len(u)):
            states[t + 1].addcmul_(a[t], states[t])
        return a, states, gain
