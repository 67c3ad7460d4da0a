"""Every file in configs/ is what it says it is."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from backbones.command_line import parse
from backbones.recipe import Recipe

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(file):
    assert parse(Recipe, ["--config", str(file)]).model == "csresnext50_ws_mi2"


@pytest.mark.parametrize(
    ("name", "machines", "processes", "precision"),
    [
        ("cpu1", 1, 1, "no"),
        ("cpu2", 1, 2, "no"),
        ("gpu1", 1, 1, "bf16"),
        ("gpu8", 1, 8, "bf16"),
        ("nodes2x8", 2, 16, "bf16"),
    ],
)
def test_every_launch_file_starts_what_its_name_says(name, machines, processes, precision):
    config = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes, config.mixed_precision) == (machines, processes, precision)
    assert str(config.distributed_type) == ("DistributedType.MULTI_GPU" if processes > 1 else "DistributedType.NO")


def test_no_launch_file_is_left_untested():
    assert {path.stem for path in (CONFIGS / "accelerate").iterdir()} == {"cpu1", "cpu2", "gpu1", "gpu8", "nodes2x8"}


def test_omega_is_what_darknet_trained():
    recipe = parse(Recipe, ["--config", str(CONFIGS / "omega.yaml")])
    assert (recipe.steps, recipe.batch_size, recipe.grad_accum_steps) == (1_200_000, 128, 4)
    assert (recipe.lr, recipe.img_size) == (0.1, 256)
    assert (recipe.optim.momentum, recipe.optim.weight_decay, recipe.optim.power) == (0.9, 0.0005, 4)
    assert (recipe.optim.burn_in, recipe.optim.bn_momentum, recipe.mixing.smoothing) == (1000, 0.01, 0.1)
