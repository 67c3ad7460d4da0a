"""Guard against NaN and infinity: such a step is not taken, on any process, and its images are named."""

from collections.abc import Iterable
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from backbones.errors import UserError
from backbones.files import write_text

NOT_FINITE = "not-finite"
"""Beginning of the names of files that list the images of a bad step."""

REMEDY = "Lower --lr, lengthen --burn-in, or set --clip-grad."


class NotFiniteError(UserError):
    """The end of a run, or of a part of it, at a step whose loss or gradient is not finite."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
        """The bad step, from 1."""


def spread_nan(loss: Tensor) -> Tensor:
    """Return the loss with a gradient of NaN where it is not finite, and with its own otherwise.

    The sum of gradients over the processes then tells every process. A finite loss is multiplied by 1, which is exact.

    Shape:
        () -> ()
    """
    value = loss.detach()
    return loss * (value - value + 1)  # infinity minus infinity is NaN; to ask isfinite takes four kernels


def measure_gradient(accelerator: Accelerator, parameters: Iterable[nn.Parameter], clip: float | None) -> Tensor:
    """Return the norm of the whole gradient on the device, before it is clipped to ``clip``.

    Shape:
        -> ()
    """
    parameters = list(parameters)
    if clip is not None:
        norm = accelerator.clip_grad_norm_(parameters, clip)
        assert norm is not None
        return norm
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None], foreach=True)


def forbid_update(optimizer: Optimizer, norm: Tensor) -> None:
    """Let a fused optimizer skip its next update where ``norm`` is not finite; the host need not know.

    Torch's fused optimizers read ``found_inf`` on the device, as gradient scaling does.
    """
    optimizer.found_inf = (norm - norm).ne(0).float()  # type: ignore[attr-defined]  # torch's own protocol


def require_finite_weights(weights: dict[str, Tensor], what: str) -> None:
    """Raise UserError that names the first tensor with a value that is not finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"{what} is not saved: {name} holds values that are not finite. {REMEDY}")


def write_names(folder: Path, step: int, rank: int, names: Iterable[str]) -> Path:
    """Write the images of a step to a file of their own, one in each line, and return it."""
    file = folder / f"{NOT_FINITE}-step-{step}-rank-{rank}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(f"{name}\n" for name in names))
    return file
