"""The network: stem, cross stages and head, with the interface of a timm model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.layers.classifier import ClassifierHead
from torch import Tensor, nn

from backbones.layers.conv import darknet_uniform_
from backbones.layers.input_pyramid import InputPyramid
from backbones.layers.norm_act import is_recomputable
from backbones.layers.old_names import accept_old_names
from backbones.layers.shortcut import Shares, WeightedShortcut, find_shortcuts, share_together
from backbones.models.downsample import pyramid_kind
from backbones.models.recompute import recompute
from backbones.models.spec import Backbone
from backbones.models.stages import ConvStem, CrossStage


class CspBackbone(nn.Module):
    """Classifier built from a spec.

    Args:
        spec: description of the network.
        num_classes: width of the classifier; 0 leaves it out.
        in_chans: channels of the image.
        global_pool: timm's pooling before the classifier: ``avg``, ``max``, ..., or ``""`` for none.
        drop_rate: dropout before the classifier.
        device: place of the weights; ``meta`` builds the network without data. The weights have the same initial values
            on every other device, and are not drawn there.
        dtype: floating type of the weights, cast from the default type.

    Shape:
        (N, in_chans, H, W) -> (N, num_classes); any H and W, sizes are rounded up when halved
    """

    def __init__(
        self,
        spec: Backbone,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.num_features = self.head_hidden_size = spec.stages[-1].out
        self.feature_info = feature_levels(spec)
        with _skip_data(device):
            self._create_parts(global_pool)
        self.to(device=device, dtype=dtype)
        accept_old_names(self)

    def _create_parts(self, global_pool: str) -> None:
        spec, in_chans = self.spec, self.in_chans
        self.pyramid = _create_pyramid(spec)
        self.stem = ConvStem(in_chans, spec.stem, act=spec.act)
        # A Sequential, so that timm's FeatureListNet can flatten it; an input pyramid needs `forward_features`.
        self.stages = nn.Sequential(*(CrossStage(spec, index, in_chans=in_chans) for index in range(len(spec.stages))))
        self.head = ClassifierHead(self.num_features, self.num_classes, pool_type=global_pool, drop_rate=self.drop_rate)
        _initialize_classifier(self.head.fc)
        self._shortcuts = find_shortcuts(self.stages)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (N, num_features, H / s, W / s); s is 32 or ``spec.output_stride``."""
        levels, shares = self._compute_pyramid(x), self._compute_shares(x)
        x = self.stem(x)
        for stage in self.stages:
            x = self._run_stage(stage, x, levels, shares)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # noqa: FBT001  (timm's signature)
        """Pool and classify; with ``pre_logits`` pool only, (N, num_features)."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,  # noqa: ARG002  (timm's signature; there is no final norm)
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the feature maps ``indices`` of ``feature_info`` in this order, with or without the last map.

        Args:
            x: images, (N, in_chans, H, W).
            indices: positions in ``feature_info``; an int n takes the last n, None takes all.
            norm: accepted for timm; there is no final norm to apply.
            stop_early: do not run the stages after the last requested map.
            output_fmt: ``NCHW`` is the only format.
            intermediates_only: return the list only.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}: feature maps are NCHW only")
        take = _resolve_indices(len(self.feature_info), indices)
        levels = self._run_levels(x, stages=self._count_stages(max(take)) if stop_early else len(self.stages))
        features = [levels[index] for index in take]
        return features if intermediates_only else (levels[-1], features)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,  # noqa: ARG002, FBT001  (timm's signature; there is no final norm)
        prune_head: bool = True,  # noqa: FBT001
    ) -> list[int]:
        """Remove the stages that the feature maps ``indices`` do not need; return ``indices`` as non-negative numbers.

        The head is also removed if its stage is.
        """
        take = _resolve_indices(len(self.feature_info), indices)
        kept = self._count_stages(max(take))
        if prune_head or kept < len(self.stages):
            self.reset_classifier(0, "")
        self.stages = self.stages[:kept]
        self._shortcuts = find_shortcuts(self.stages)
        return take

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer; an identity if there are no classes."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; ``global_pool`` None keeps the pooling."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        _initialize_classifier(self.head.fc)

    def set_grad_checkpointing(self, enable: bool = True) -> None:  # noqa: FBT001  (timm's signature)
        """Keep only the inputs of the stages for backward, and recompute the rest."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the names of the weights that must not decay: fusion weights and learned slopes."""
        return {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, WeightedShortcut | nn.PReLU) and module.weight is not None
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: FBT001  (timm's signature)
        """Return patterns of the layers for layer-wise learning rates: stages if ``coarse``, otherwise blocks.

        The start of a stage is a layer of its own. The end of a stage belongs to its last block.
        """
        if coarse:
            return {"stem": r"^stem", "stages": r"^stages\.(\d+)"}
        start = (r"^stages\.(\d+)\.(?:downsample|join|cross|entry)", (-1,))
        end = (r"^stages\.(\d+)\.(?:last_shortcut|transition|merge)", (99999,))
        return {"stem": r"^stem", "stages": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), start, end]}

    def _compute_pyramid(self, image: Tensor) -> list[Tensor]:
        return [] if self.pyramid is None else self.pyramid(image)

    def _compute_shares(self, image: Tensor) -> Shares:
        """Compute the shares of all shortcuts at once, where autograd runs and nothing else traces the network."""
        return share_together(self._shortcuts) if is_recomputable(image) else {}

    def _run_stage(self, stage: nn.Module, x: Tensor, levels: Sequence[Tensor], shares: Shares) -> Tensor:
        assert isinstance(stage, CrossStage)
        inputs = (x,) if stage.level is None else (x, levels[stage.level - 1])
        options = {"shares": shares} if shares else {}
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return recompute(stage, *inputs, **options)
        return stage(*inputs, **options)

    def _run_levels(self, x: Tensor, *, stages: int) -> list[Tensor]:
        """Run the stem and the first ``stages`` stages and return every map listed in ``feature_info``."""
        pyramid, shares = self._compute_pyramid(x), self._compute_shares(x)
        x = self.stem.conv(x)
        levels = [x] if self._stem_is_level else []
        x = self.stem.pool(x)
        for stage in self.stages[:stages]:
            x = self._run_stage(stage, x, pyramid, shares)
            levels.append(x)
        return levels

    def _count_stages(self, level: int) -> int:
        return level if self._stem_is_level else level + 1

    @property
    def _stem_is_level(self) -> bool:
        return self.feature_info[0]["module"] == "stem.conv"


def feature_levels(spec: Backbone) -> list[dict[str, Any]]:
    """Describe the feature maps as timm does: the stem's before its pool, unless it has full size; each stage's."""
    stem = [_describe_level("stem.conv", spec.stem.width, spec.stem.stride)] if spec.stem.stride > 1 else []
    stages = zip(spec.stages, spec.reductions, strict=True)
    return stem + [_describe_level(f"stages.{index}", stage.out, size) for index, (stage, size) in enumerate(stages)]


def _describe_level(module: str, channels: int, reduction: int) -> dict[str, Any]:
    return {"num_chs": channels, "reduction": reduction, "module": module}


def _skip_data(device: torch.device | str | None) -> AbstractContextManager[Any]:
    """Return a context that builds modules without data if the device is ``meta``, and changes nothing otherwise."""
    is_meta = device is not None and torch.device(device).type == "meta"
    return torch.device("meta") if is_meta else nullcontext()


def _create_pyramid(spec: Backbone) -> InputPyramid | None:
    if spec.pyramid == "none":
        return None
    return InputPyramid(spec.reductions[-1].bit_length() - 1, pyramid_kind(spec))


def _initialize_classifier(classifier: nn.Module) -> None:
    # darknet's classifier is a 1x1 convolution with a bias, so it follows the rule of all convolutions.
    if isinstance(classifier, nn.Linear):
        darknet_uniform_(classifier.weight)
        nn.init.zeros_(classifier.bias)


def _resolve_indices(count: int, indices: int | Sequence[int] | None) -> list[int]:
    if indices is None:
        return list(range(count))
    chosen = range(-indices, 0) if isinstance(indices, int) else indices
    if not chosen or not all(-count <= index < count for index in chosen):
        raise ValueError(f"out_indices={indices}: there are {count} feature maps, 0 to {count - 1}")
    return [index % count for index in chosen]
