"""The recipe refuses what cannot be meant, and survives YAML."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml

from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import (
    Augment,
    DarknetAugment,
    Ema,
    InceptionAugment,
    Loading,
    Log,
    Mixing,
    Optim,
    Preprocess,
    Recipe,
    Synthetic,
    burn_in_steps,
    differences,
    resolve,
    run_length,
)


@pytest.mark.parametrize(
    ("augment", "unused"),
    [
        ({"darknet": DarknetAugment(angle=3), "augmentation": "inception"}, "augment.darknet.angle=3"),
        ({"inception": InceptionAugment(erasing=0.2)}, "augment.inception.erasing=0.2"),
    ],
)
def test_an_option_of_the_other_augmentation_is_refused(augment, unused):
    with pytest.raises(UserError, match=f"{unused}: without effect, since augmentation="):
        Augment(**augment)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"interpolation": "bicubic"}, "needs preprocess.protocol=timm or full"),
        ({"protocol": "full", "crop_pct": 0.9}, "must be 1 with preprocess.protocol=full"),
    ],
)
def test_what_a_protocol_does_not_have_is_refused(preprocess, message):
    with pytest.raises(UserError, match=message):
        Preprocess(**preprocess)


@pytest.mark.parametrize(
    ("group", "option", "value"),
    [
        (Preprocess, "crop_pct", 0.0),
        (Preprocess, "std", (1.0, 0.0, 1.0)),
        (InceptionAugment, "scale", (0.5, 0.2)),
        (InceptionAugment, "scale", (0.5, 1.5)),
        (InceptionAugment, "ratio", (0.0, 1.0)),
        (InceptionAugment, "color_jitter", -0.1),
        (InceptionAugment, "magnitude", 31),
        (InceptionAugment, "erasing", 1.1),
        (DarknetAugment, "min_crop", 0),
        (DarknetAugment, "max_crop", 100),
        (DarknetAugment, "aspect", 0.0),
        (DarknetAugment, "angle", 181.0),
        (DarknetAugment, "hue", 0.6),
        (DarknetAugment, "saturation", 0.0),
        (DarknetAugment, "exposure", -1.0),
        (Augment, "hflip", 1.5),
        (Mixing, "blur", 4),
        (Mixing, "blur", 1),
        (Loading, "bad_images_limit", 1.5),
        (Loading, "hw_decoder_load", -1.0),
        (Loading, "preallocate", (-1, 5)),
        (Loading, "read_threads", 0),
        (Loading, "prefetch", 0),
        (Mixing, "prob", -0.1),
        (Mixing, "smoothing", 1.0),
        (Synthetic, "classes", 0),
        (Optim, "momentum", 1.0),
        (Optim, "weight_decay", -1.0),
        (Optim, "power", 0.0),
        (Optim, "burn_in", -1),
        (Optim, "clip_grad", 0.0),
        (Optim, "bn_momentum", 0.0),
        (Optim, "burnin_update", -1),
        (Ema, "decay", 1.0),
        (Log, "interval", 0),
        (Recipe, "batch_size", 0),
        (Recipe, "lr", 0.0),
        (Recipe, "seed", -1),
        (Recipe, "steps", 0),
        (Log, "wandb_project", "https://me:password@wandb.invalid"),
    ],
)
def test_a_value_out_of_range_is_named(group, option, value):
    with pytest.raises(UserError, match=rf"{option}=.*must"):
        group(**{option: value})


def test_a_hold_of_the_fusion_weights_belongs_to_darknets_rule():
    with pytest.raises(UserError, match=r"burnin_update=2 is part of darknet's rule: set optim.fusion_update=darknet"):
        Optim(burnin_update=2)
    assert Optim(fusion_update="darknet", burnin_update=2).burnin_update == 2


def test_the_length_of_a_run_is_given_once():
    with pytest.raises(UserError, match="epochs=3 and steps=40 both say"):
        Recipe(epochs=3, steps=40)


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [(Recipe(steps=7), 7), (Recipe(epochs=3), 30), (Recipe(), 1200)],
    ids=["steps", "epochs", "none"],
)
def test_the_run_is_as_long_as_the_recipe_says(recipe, steps):
    assert run_length(recipe, steps_per_epoch=10) == steps


@pytest.mark.parametrize(
    ("burn_in", "total", "steps"), [(None, 1_200_000, 1000), (None, 500, 50), (0, 10, 0), (9, 10, 9)]
)
def test_burn_in_fits_the_run(burn_in, total, steps):
    assert burn_in_steps(Recipe(optim=Optim(burn_in=burn_in)), total) == steps


def test_a_burn_in_that_never_ends_is_refused():
    with pytest.raises(UserError, match=r"optim.burn_in=10 must be smaller than the run's 10 steps"):
        burn_in_steps(Recipe(optim=Optim(burn_in=10)), 10)


def test_a_recipe_written_as_yaml_reads_back_as_the_same_recipe(tmp_path):
    recipe = replace(Recipe(), model_args={"act": "leaky"}, lr=3e-5, augment=Augment(darknet=DarknetAugment(hue=0.2)))
    recipe = replace(recipe, epochs=3, log=Log(wandb_mode="offline"), optim=Optim(burn_in=5, clip_grad=1.0))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert parse(Recipe, [], config=tmp_path / "recipe.yaml") == recipe


def test_a_resolved_recipe_leaves_nothing_open():
    recipe = resolve(Recipe(), precision="bf16", steps_per_epoch=50)
    assert (recipe.precision, recipe.epochs, recipe.steps, recipe.optim.burn_in) == ("bf16", 120, None, 600)
    recipe = resolve(Recipe(steps=100), precision="fp32", steps_per_epoch=50)
    assert (recipe.epochs, recipe.steps, recipe.optim.burn_in) == (None, 100, 10)


def test_differences_name_each_option_once():
    changed = differences(Recipe().to_dict(), replace(Recipe(), lr=0.2, mixing=Mixing(prob=0.1)).to_dict())
    assert changed == {"lr": (0.1, 0.2), "mixing.prob": (0.5, 0.1)}


def test_every_field_says_what_it_means():
    source = Path(__file__).parents[1].joinpath("backbones/recipe.py").read_text()
    for group in (
        Recipe,
        Preprocess,
        Augment,
        DarknetAugment,
        InceptionAugment,
        Loading,
        Mixing,
        Synthetic,
        Optim,
        Ema,
        Log,
    ):
        assert is_dataclass(group)
        for field in fields(group):
            declaration = source[source.index(f"class {group.__name__}:") :]
            declaration = declaration[declaration.index(f"    {field.name}: ") :].split("\n")
            assert declaration[1].lstrip().startswith('"""'), f"{group.__name__}.{field.name} has no docstring"


def test_a_limit_that_nothing_obeys_is_refused():
    with pytest.raises(UserError, match=r"loading\.bad_images_limit=0\.1 needs --bad-images skip"):
        Loading(bad_images_limit=0.1)


@pytest.mark.parametrize(("written", "read"), [("true", "default"), ("false", False), ("max-autotune", "max-autotune")])
def test_a_recipe_says_whether_to_compile_or_in_which_mode(config, written, read):
    recipe = parse(Recipe, ["--config", config(f"torchcompile: {written}")])
    assert recipe.torchcompile == recipe.to_dict()["torchcompile"] == read
