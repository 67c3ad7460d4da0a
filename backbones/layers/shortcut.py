"""Shortcut: the sum of feature maps, plain or with learned weights (darknet issue #4662)."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.choices import ActivationName, FusionGradient, Normalization, WeightsType
from backbones.layers.activation import create_activation
from backbones.layers.norm_act import Unmerged, finish, merge, require_fitting
from backbones.layers.recomputed.shares import EPSILON, compute_shares
from backbones.rules import require_fusion

Shares = dict[nn.Module, Tensor]
"""Effective weights of shortcuts, each (inputs, 1 or C), by the shortcut."""

MIN_WEIGHT = 1e-3
"""Lower bound of fusion weights in the relu normalization (darknet's GPU code since March 2020)."""


class WeightedShortcut(nn.Module):
    """Sum of feature maps of one resolution, each multiplied by its effective weight, then an activation.

    The first input is the output of the layer before; it defines the width of the result. A narrower input adds to the
    first channels only; of a wider input only the first channels are added. The raw parameter ``weight`` has one row
    for each input. It starts at 1 (sigmoid: 0), so a normalized shortcut starts as the mean of its inputs. With
    ``weights_type="none"`` there is no parameter and the result is the plain sum.

    Args:
        channels: width of every input, the layer before first; at least two.
        weights_type: ``per_feature`` learns one scalar for each input, ``per_channel`` one for each input and channel.
        normalization: rule that turns raw weights into shares, see `effective_weights`. ``none`` with weights
            multiplies by the raw weights; darknet has this form only after folding, not for training.
        act: activation of the sum.
        floor: lower bound of the relu normalization. 0 is the hard relu of darknet's CPU code, and of all darknet
            before March 2020. With 0, a shortcut with negative weights only stays off.
        fusion_gradient: ``true``, or ``darknet`` for the one that darknet's CUDA code gives the raw weights, see
            `with_darknet_gradient`. The output and the gradients of the inputs are the same.
        burnin_update: number of burn-ins for which darknet's update rule holds the weights; used by the trainer.

    Shape:
        (N, channels[j], H, W) for each j -> (N, channels[0], H, W); ``weight`` (inputs, 1 or channels[0])

    Raises:
        ValueError: a choice is unknown, there are fewer than two inputs, a normalization has no weights, or darknet has
            no gradient for it; or a call has inputs of another number, width or size.
    """

    recompute = True

    def __init__(
        self,
        channels: Sequence[int],
        *,
        weights_type: WeightsType = "none",
        normalization: Normalization = "none",
        act: ActivationName = "linear",
        floor: float = MIN_WEIGHT,
        fusion_gradient: FusionGradient = "true",
        burnin_update: int = 0,
    ) -> None:
        super().__init__()
        require_fusion(weights_type, normalization, fusion_gradient)
        if len(channels) < 2:
            raise ValueError(f"channels={tuple(channels)}: a shortcut adds at least two inputs")
        self.channels = tuple(channels)
        self.weights_type: WeightsType = weights_type
        self.normalization: Normalization = normalization
        self.floor = floor
        self.fusion_gradient: FusionGradient = fusion_gradient
        self.burnin_update = burnin_update
        self.weight = _create_weight(self.channels, weights_type, normalization)
        self.act = create_activation(act, self.channels[0])

    def forward(self, first: Tensor | Unmerged, *others: Tensor, shares: Tensor | None = None) -> Tensor:
        """Add the inputs, which have the order of ``channels``.

        Args:
            first: output of the layer before; the normalization of one that is `Unmerged` becomes part of the sum.
            others: further inputs.
            shares: the effective weights, where they are computed already.
        """
        shares = self.effective_weights() if shares is None else shares
        merged = merge(first, others, self.channels, shares=shares, act=self.act) if self.recompute else None
        return self.act(sum_fitting((finish(first), *others), shares, self.channels)) if merged is None else merged

    def effective_weights(self) -> Tensor | None:
        """Return the share of each input, (inputs, 1 or C); None for a plain sum."""
        if self.weight is None:
            return None
        shares = effective_weights(self.weight, self.normalization, floor=self.floor)
        if self.fusion_gradient == "true":
            return shares
        return with_darknet_gradient(self.weight, shares, self.normalization)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Replace the raw weights by their shares, for inference; the normalization becomes ``none``.

        ``timm.utils.reparameterize_model`` calls this method by its name.
        """
        shares = self.effective_weights()
        if self.weight is not None and shares is not None:
            self.weight.copy_(shares)
            self.normalization = "none"
            self.fusion_gradient = "true"

    def extra_repr(self) -> str:
        """Show the widths and the fusion in ``print(model)``."""
        fusion = f"weights_type={self.weights_type}, normalization={self.normalization}"
        return f"{self.channels}, {fusion}, fusion_gradient={self.fusion_gradient}"


def find_shortcuts(model: nn.Module) -> list[WeightedShortcut]:
    """Return the shortcuts of ``model`` that have fusion weights."""
    shortcuts = [module for module in model.modules() if isinstance(module, WeightedShortcut)]
    return [shortcut for shortcut in shortcuts if shortcut.weight is not None]


def share_together(shortcuts: Iterable[WeightedShortcut]) -> Shares:
    """Return the shares of weighted shortcuts, those of one rule computed together."""
    groups: dict[tuple[Normalization, float, FusionGradient], list[WeightedShortcut]] = {}
    for shortcut in shortcuts:
        if shortcut.recompute:
            rule = (shortcut.normalization, shortcut.floor, shortcut.fusion_gradient)
            groups.setdefault(rule, []).append(shortcut)
    shares: Shares = {}
    for rule, alike in groups.items():
        weights = [cast(Tensor, shortcut.weight) for shortcut in alike]
        shares.update(zip(alike, compute_shares(weights, *rule), strict=True))
    return shares


def fusion_weights(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Return the raw fusion weights in ``model``, each with its hold in burn-ins, for darknet's update rule."""
    return [(cast(nn.Parameter, each.weight), each.burnin_update) for each in find_shortcuts(model)]


def effective_weights(weight: Tensor, normalization: Normalization, *, floor: float = MIN_WEIGHT) -> Tensor:
    """Turn raw fusion weights into shares: ``r / (epsilon + sum of r over the inputs)``.

    ``r`` is ``max(weight, floor)`` for ``relu`` and ``exp(weight - largest)`` for ``softmax``. The sum includes every
    row, also for channels that a narrower input does not have. Two rules have no sum: ``sigmoid`` is
    ``2 sigmoid(weight) / inputs``, as in a port of YOLOv3 in darknet issue #4662, and ``none`` is the raw weight.

    Shape:
        (inputs, 1 or C) -> the same
    """
    if normalization == "none":
        return weight
    if normalization == "sigmoid":
        return torch.sigmoid(weight) * (2 / weight.shape[0])
    raw = weight.clamp_min(floor) if normalization == "relu" else _exponentiate(weight)
    return raw / (EPSILON + raw.sum(0, keepdim=True))


def with_darknet_gradient(weight: Tensor, shares: Tensor, normalization: Normalization) -> Tensor:
    """Return ``shares`` with the gradient of the raw weights that darknet's CUDA kernel computes.

    G_j is the gradient of share p_j. Raw weight j gets p_j (1 - p_j) G_j (softmax), p_j G_j (relu, also below the
    floor) or G_j (none). The cross terms of the normalization are left out.

    Shape:
        weight (inputs, 1 or C), shares the same -> the same
    """
    shares = shares.detach()
    factor = {"softmax": shares * (1 - shares), "relu": shares, "none": torch.ones_like(shares)}[normalization]
    # weight - weight.detach() is zero, but passes the gradient through.
    return shares + factor * (weight - weight.detach())


@torch.fx.wrap
def sum_fitting(inputs: Sequence[Tensor], weights: Tensor | None, channels: Sequence[int]) -> Tensor:
    """Compute `weighted_sum` of inputs that must have these channels and one size.

    It is one node of a graph that `torch.fx` traces, because a trace has no shapes to check.

    Shape:
        inputs (N, channels[j], H, W), weights (inputs, 1 or C_0) -> (N, channels[0], H, W)

    Raises:
        ValueError: the inputs have another number, width or size.
    """
    require_fitting(inputs, channels)
    return weighted_sum(inputs, weights)


def weighted_sum(inputs: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """Add feature maps, each multiplied by its row of ``weights`` (plain sum if None).

    The weights are cast to the type of the maps. So under autocast the sum stays in bfloat16 like its inputs, but the
    gradients of the weights are summed in the type of the weights.

    Shape:
        inputs (N, C_j, H, W), weights (inputs, 1 or C_0) -> (N, C_0, H, W)
    """
    first, *others = inputs
    fitted = [_fit_channels(x, first.shape[1]) for x in others]
    if weights is None:
        return sum(fitted, start=first)
    shares = weights[:, None, :, None, None]
    if first.dtype != weights.dtype:
        return sum(
            (_scale(x, share) for x, share in zip(fitted, shares[1:], strict=True)), start=_scale(first, shares[0])
        )
    total = first * shares[0]
    for x, share in zip(fitted, shares[1:], strict=True):
        total = torch.addcmul(total, x, share)
    return total


class _Scale(torch.autograd.Function):
    """Product of a map of half precision and a share of single precision.

    The normalization subtracts the gradients of the shares from each other. Similar inputs have nearly equal gradients,
    which must not be rounded to half precision before that.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return x * share.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,), (x, share) = gradients, ctx.saved_tensors
        summed = [axis for axis, size in enumerate(share.shape) if size == 1]
        return gradient * share.to(gradient.dtype), (gradient * x).sum(summed, keepdim=True, dtype=share.dtype)


def _scale(x: Tensor, share: Tensor) -> Tensor:
    return cast("Tensor", _Scale.apply(x, share))


def _create_weight(
    channels: Sequence[int], weights_type: WeightsType, normalization: Normalization
) -> nn.Parameter | None:
    columns = {"none": 0, "per_feature": 1, "per_channel": channels[0]}[weights_type]
    start = 0.0 if normalization == "sigmoid" else 1.0
    return nn.Parameter(torch.full((len(channels), columns), start)) if columns else None


def _exponentiate(weight: Tensor) -> Tensor:
    # Subtracting the largest weight only keeps exp() in range; it has no gradient, as in darknet.
    return torch.exp(weight - weight.detach().amax(0, keepdim=True))


def _fit_channels(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] < channels:
        return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
    return x[:, :channels]
