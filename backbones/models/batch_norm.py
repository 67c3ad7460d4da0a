"""The momentum of batch normalization, set in any finished model."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def set_batch_norm(model: nn.Module, *, momentum: float) -> int:
    """Set the momentum of every batch normalization in ``model`` and return their number.

    Torch's momentum is the share of the new batch: 0.01 is darknet's rule, 0.1 torch's default.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must lie in [0, 1]: it is the share of the new batch")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = momentum
    return len(norms)
