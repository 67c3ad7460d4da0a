"""Variables of launchers in the environment: a SLURM or MPI shell, or an earlier launch, may have left some."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from accelerate import Accelerator

from backbones.errors import UserError

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
"""Variables of torch's launchers that hold whole numbers."""

ADDRESS = "MASTER_ADDR"

PREFIXES = ("ACCELERATE_", "OMPI_COMM_WORLD_", "PMI_", "MV2_COMM_WORLD_")
"""Beginnings of the variables of accelerate and of MPI that accelerate reads."""

ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""Switches of accelerate for engines other than DistributedDataParallel."""

TRUE = frozenset({"1", "true", "yes", "y", "t", "on"})
"""Texts that accelerate takes as true."""


def require_usable_variables(environment: Mapping[str, str]) -> None:
    """Raise UserError for a number that is none, or an engine that this trainer does not have."""
    for name in NUMBERS:
        if not environment.get(name, "0").isdigit():
            raise UserError(f"{name}={environment[name]} in the environment is not a number.\n{_remedy([name])}")
    for name, engine in ENGINES.items():
        if environment.get(name, "").lower() in TRUE:
            raise UserError(
                f"{name}={environment[name]} asks for {engine}, but this trainer has DistributedDataParallel only.\n"
                "Use a launch file of configs/accelerate, or answer no in `accelerate config`."
            )


@contextmanager
def explaining_variables() -> Iterator[None]:
    """Turn an error of accelerate while it sets up the processes into a UserError that shows the variables.

    Those that cannot be meant are refused first, as `require_usable_variables` does.
    """
    require_usable_variables(os.environ)
    before = dict(os.environ)  # accelerate adds some of its own
    try:
        yield
    except (ValueError, ImportError, RuntimeError, KeyError) as error:
        names = [name for name in sorted(before) if name in (*NUMBERS, ADDRESS) or name.startswith(PREFIXES)]
        if not names:
            raise
        said = " ".join(f"{name}={before[name]}" for name in names)
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the processes cannot be set up as the environment says: {reason}\nIt says: {said}\n{_remedy(names)}"
        ) from error


def require_asked_accumulation(accelerator: Accelerator, asked: int) -> None:
    """Raise UserError where accelerate accumulates other steps than ``asked``: a variable overrules its argument."""
    got = accelerator.gradient_accumulation_steps
    if got != asked:
        name = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
        raise UserError(f"{name}={got}, but --grad-accum-steps is {asked}.\n{_remedy([name])}")


def _remedy(names: list[str]) -> str:
    unset = " ".join(f"-u {name}" for name in names)
    return f"Start one process with `env {unset} python ...`, several with `accelerate launch` or `torchrun`."
