"""Variables that SLURM, MPI or an earlier launch left are named, with the command that leaves them out."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from backbones.errors import UserError
from backbones.training.launch_variables import (
    explaining_variables,
    require_asked_accumulation,
    require_usable_variables,
)

LAUNCH = "from backbones.training.launch import create_accelerator as create; from backbones.errors import *\n"
LAUNCH += "with exit_on_user_error(): create(device='cpu', timeout=5)"


def test_what_accelerate_cannot_set_up_is_told_with_the_variables_that_were_there() -> None:
    left = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH], check=False, env=os.environ | left, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the processes cannot be set up as the environment says: ")
    assert "\nIt says: OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4\n" in done.stderr
    assert "`env -u OMPI_COMM_WORLD_RANK -u OMPI_COMM_WORLD_SIZE python ...`" in done.stderr


@pytest.mark.parametrize("error", [ValueError, ImportError, RuntimeError, KeyError])
@pytest.mark.parametrize("name", ["WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_DYNAMO_BACKEND", "PMI_SIZE"])
def test_any_error_of_accelerate_is_told_with_them(monkeypatch: pytest.MonkeyPatch, name: str, error: type) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match=rf"no such thing.*\nIt says: (\S+ )*{name}=2"), explaining_variables():
        raise error("no such thing")


def test_an_error_without_such_variables_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "OMPI_", "PMI_", "MV2_"))]:
        monkeypatch.delenv(name)
    with pytest.raises(ValueError, match="a fault of ours"), explaining_variables():
        raise ValueError("a fault of ours")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
def test_a_number_that_is_none_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}=two in the environment is not a number.\n.*env -u {name} python"):
        require_usable_variables({name: "two"})
    require_usable_variables({name: "2"})


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_engines_that_this_trainer_lacks_are_refused(engine: str) -> None:
    with pytest.raises(UserError, match=rf"ACCELERATE_USE_{engine}=true asks for .*DistributedDataParallel only"):
        require_usable_variables({f"ACCELERATE_USE_{engine}": "true"})
    require_usable_variables({f"ACCELERATE_USE_{engine}": "false"})


def test_an_accumulation_that_overrules_the_recipes_is_refused() -> None:
    got = SimpleNamespace(gradient_accumulation_steps=4)
    with pytest.raises(UserError, match=r"ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4, but --grad-accum-steps is 2"):
        require_asked_accumulation(got, 2)  # pyright: ignore[reportArgumentType]
    require_asked_accumulation(got, 4)  # pyright: ignore[reportArgumentType]
