"""Input and output that the three loaders share: plans and a Feed in, each plan with its pixels out."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from backbones.data.augment.view import View
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.recipe import Loading


@dataclass(frozen=True, eq=False)
class Feed:
    """Everything a loader needs to know about its images except their order."""

    index: Index
    """The files."""
    view: View
    """Geometry and augmentation of an image."""
    batch_size: int
    """Images of the largest plan."""
    device: torch.device
    """Device of the pixels; a GPU also decodes."""
    workers: int
    """Decoding threads."""
    loading: Loading
    """Reading threads, batches ahead, decoder memory."""
    bad: BadImages
    """The rule for bad images."""


Pixels = Iterator[tuple[Plan, torch.Tensor]]
"""Plans in the order given, each with its images as uint8 RGB, (N, size, size, 3), before colours change. The rows of a
plan name the images that were used."""

OpenImages = Callable[[Iterator[Plan], Feed], AbstractContextManager[Pixels]]
"""Type of ``images`` in pipeline.py (DALI), reference.py (torchvision) and synthetic.py. Leaving the context ends its
threads."""

OpenStage = Callable[[Iterator[Plan], Feed], AbstractContextManager[Iterator[tuple[Plan, Any]]]]
"""Type of the values of ``STAGES`` in the same modules: ``images``, or a first part of its work."""
