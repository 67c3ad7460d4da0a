"""What a backend is told: it turns an iterator of plans into an iterator of (plan, pixels), in the same order."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch

from backbones.data.augment.view import View
from backbones.data.order import Plan
from backbones.data.reading.bad_images import BadImages
from backbones.dataset.index import Index
from backbones.recipe import Loading


@dataclass(frozen=True, eq=False)
class Feed:
    """Everything about a stream of images but their order."""

    index: Index
    """The files."""
    view: View
    """How an image becomes (size, size) pixels."""
    batch_size: int
    """Images of the largest plan."""
    device: torch.device
    """Where a backend with a GPU decoder decodes."""
    workers: int
    """Decoding threads."""
    loading: Loading
    """Threads, batches ahead, decoder memory."""
    bad: BadImages
    """What a bad image does."""


Pixels = Generator[tuple[Plan, torch.Tensor], None, None]
"""Each plan with its images as uint8 RGB, (N, size, size, 3), before colours change; its rows name the images that
were used. Closing the generator ends its threads."""

Backend = Callable[[Iterator[Plan], Feed], Pixels]
"""The one signature of ``images`` in pipeline.py (DALI), reference.py (torchvision) and synthetic.py."""
