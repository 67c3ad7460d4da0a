"""Top-k by counting: sums that add up exactly over batches and processes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def topk_correct(logits: Tensor, labels: Tensor, *, ks: Sequence[int] = (1, 5)) -> Tensor:
    """Count the images whose label is among the k highest logits, for each k.

    Ties go to the lower class index, as in darknet, so the count does not depend on a sort. A row without a
    finite logit for its label is wrong, never right.

    Shape:
        logits (N, K), labels (N,) int64 -> (len(ks),) int64
    """
    own = logits.gather(1, labels[:, None])
    lower_index = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & lower_index)
    rank = ahead.sum(dim=1)
    finite = logits.isfinite().all(dim=1)
    return torch.stack([((rank < k) & finite).sum() for k in ks])
