"""The operation as a value: ``out_act(merge(act(norm(x)), others))``."""

from typing import NamedTuple

import torch
from torch import Tensor


class Expression(NamedTuple):
    """``out_act(merge(act(norm(x)), others))``; the fields have the order of the operators' arguments."""

    x: Tensor
    """(N, C, H, W), the output of a convolution."""
    mean: Tensor | None
    """(G, C), means of G groups of N / G images. None leaves out the normalization; ``act`` is linear then."""
    var: Tensor | None
    """(G, C), biased variances."""
    weight: Tensor | None
    """(C,), factor after the normalization."""
    bias: Tensor | None
    """(C,), summand after the normalization."""
    eps: float
    """Summand of the variance."""
    act: str
    """Activation of the normalized map."""
    slope: float
    """Slope of ``act``."""
    slopes: Tensor | None
    """Learned slopes of ``act``."""
    others: list[Tensor]
    """(N, C_j, H, W), further inputs of the merge; none leaves it out."""
    shares: Tensor | None
    """(1 + others, 1 or C), factors of the sum. None is the plain sum."""
    kind: str
    """``sum`` or ``max``."""
    out_act: str
    """Activation of the merged map."""
    out_slope: float
    """Slope of ``out_act``."""
    out_slopes: Tensor | None
    """Learned slopes of ``out_act``."""

    @property
    def is_plain_sum(self) -> bool:
        """Whether all inputs of the merge have the same gradient, that of the merged map."""
        return self.kind == "sum" and self.shares is None

    @property
    def has_own_gradient_of_merge(self) -> bool:
        """Whether the gradient of the merged map of a plain sum is neither that of the value nor that of ``x``."""
        return self.is_plain_sum and self.out_act != "linear" and self.mean is not None and len(self.others) > 0

    @property
    def rows(self) -> list[str]:
        """Names of the rows of `Gradients`: the parameters whose gradients are sums over cells."""
        names = ["bias", "weight"] if self.mean is not None else []
        names += ["slopes"] if self.act == "prelu" else []
        names += ["share"] * (0 if self.shares is None else len(self.shares))
        return names + (["out_slopes"] if self.out_act == "prelu" else [])


class Gradients(NamedTuple):
    """Gradients of an expression."""

    x: Tensor
    """(N, C, H, W)."""
    rows: Tensor
    """(R, C), sums over the cells of each channel, see `Expression.rows`."""
    others: list[Tensor]
    """(N, C_j, H, W). Of a plain sum, the gradient of the merged map only; nothing where that is the gradient of the
    value or of ``x``, because results of an operator share no memory."""


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Return channels_last for maps in this order, else the order of the shape."""
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format
