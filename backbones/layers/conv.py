"""The unit of every network here: convolution, batch normalization, activation."""

import math

import torch
from torch import Tensor, nn

from backbones.layers.activation import ActivationName, create_activation
from backbones.layers.fold import fold_unit
from backbones.layers.norm_act import Unmerged, is_recomputable, norm_act


class ConvNormAct(nn.Module):
    """Convolution without bias, `BatchNorm2d` and activation: darknet's ``[convolutional]``.

    The padding is ``kernel // 2 * dilation``. With an odd kernel, a stride of 1 keeps the size, and a stride of 2
    halves it and rounds up. ``bn_momentum`` is the share of the new batch in the running statistics, 0.01 in darknet's
    GPU code; `backbones.models.batch_norm.set_batch_norm` changes it in a finished model.

    In training, backward computes the normalized map once more in place of keeping it, unless ``recompute`` is False
    (see `set_recompute`).

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for an odd kernel
    """

    recompute = True

    def __init__(  # noqa: PLR0913  (every option of a convolution)
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: ActivationName = "mish",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=bn_eps, momentum=bn_momentum)
        self.act = create_activation(act, out_channels)
        darknet_uniform_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalize, activate."""
        x = self.conv(x)
        return norm_act(x, self.bn, self.act) if self.recompute else self.act(self.bn(x))

    def convolve(self, x: Tensor) -> Tensor | Unmerged:
        """Convolve, and leave normalization and activation to a merge where they can become part of it.

        Shape:
            (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))
        """
        can_wait = self.recompute and type(self) is ConvNormAct and is_recomputable(x, self, self.bn, self.act)
        return Unmerged(self.conv(x), self.bn, self.act) if can_wait else self(x)

    def reparameterize(self) -> None:
        """Fold the batch normalization into the convolution, for inference.

        ``timm.utils.reparameterize_model`` calls this method by its name.
        """
        fold_unit(self)


@torch.no_grad()
def darknet_uniform_(weight: Tensor) -> Tensor:
    """Fill a weight in place from U(-s, s), s = sqrt(2 / fan_in): darknet's rule for every convolution.

    The standard deviation is s / sqrt(3), smaller than He's by that factor.

    Shape:
        (out, in / groups, kernel, kernel) or (out, in), unchanged; fan_in is the size of one row
    """
    bound = math.sqrt(2 / weight[0].numel())
    return weight.uniform_(-bound, bound)
