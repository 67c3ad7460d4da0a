"""What a file says gives way to what the command line or a later file says; other contradictions are errors."""

import pytest

from backbones.command_line import parse
from backbones.errors import UserError
from backbones.recipe import Recipe

CLASHES = [
    ("epochs: 8", ["--steps", "60"], lambda r: (r.epochs, r.steps) == (None, 60)),
    ("steps: 60", ["--epochs", "8"], lambda r: (r.epochs, r.steps) == (8, None)),
    ("optim: {burn_in: 60}", ["--steps", "60"], lambda r: r.optim.burn_in is None),
    ("optim: {burn_in: 59}", ["--steps", "60"], lambda r: r.optim.burn_in == 59),
    (
        "augment: {augmentation: inception, inception: {scale: [0.2, 0.9], erasing: 0.2, auto: randaugment}}",
        ["--augmentation", "darknet"],
        lambda r: (
            (r.augment.inception.scale, r.augment.inception.erasing, r.augment.inception.auto)
            == ((0.33, 1.0), 0, "none")
        ),
    ),
    ("augment: {darknet: {angle: 3}}", ["--augmentation", "inception"], lambda r: r.augment.darknet.angle == 7),
    (
        "preprocess: {protocol: timm, interpolation: bicubic}",
        ["--protocol", "darknet"],
        lambda r: r.preprocess.interpolation == "bilinear",
    ),
    ("preprocess: {crop_pct: 0.9}", ["--protocol", "full"], lambda r: r.preprocess.crop_pct == 1),
    (
        "loading: {bad_images: skip, bad_images_limit: 0.1}",
        ["--bad-images", "stop"],
        lambda r: r.loading.bad_images_limit == 1e-4,
    ),
    ("{init_weights: a, init_sha256: b, init_partial: true}", ["--init-weights", "c"], lambda r: not r.init_sha256),
    ("{init_weights: a, init_partial: true}", ["--init-weights", "null"], lambda r: not r.init_partial),
    ("{init_weights: a, init_sha256: b}", ["--pretrained"], lambda r: not (r.init_weights or r.init_sha256)),
    ("{pretrained: true, init_sha256: b}", ["--init-weights", "c"], lambda r: not (r.pretrained or r.init_sha256)),
    (
        "optim: {fusion_update: darknet, burnin_update: 2}",
        ["--fusion-update", "sgd"],
        lambda r: r.optim.burnin_update is None,
    ),
]


@pytest.mark.parametrize(("text", "words", "wins"), CLASHES)
def test_what_a_file_says_gives_way_where_the_command_line_contradicts_it(config, text, words, wins):
    assert wins(parse(Recipe, [*words, "--config", config(text)]))


def test_a_later_file_wins_over_an_earlier_one(config, tmp_path):
    (tmp_path / "first.yaml").write_text("epochs: 8\nlr: 0.3")
    recipe = parse(Recipe, ["-c", config("steps: 60")], config=tmp_path / "first.yaml")
    assert (recipe.epochs, recipe.steps, recipe.lr) == (None, 60, 0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "3", "--steps", "40"], "epochs=3 and steps=40 both say"),
        (["--augmentation", "darknet", "--erasing", "0.2"], "augment.inception.erasing=0.2: without effect"),
        (["--protocol", "darknet", "--interpolation", "bicubic"], "needs preprocess.protocol=timm"),
        (["--protocol", "full", "--crop-pct", "0.9"], "must be 1 with preprocess.protocol=full"),
        (["--bad-images", "stop", "--bad-images-limit", "0.1"], "needs --bad-images skip"),
        (["--fusion-update", "sgd", "--burnin-update", "2"], "part of darknet's rule"),
        (["--pretrained", "--init-weights", "a"], r"init_weights=a and pretrained=True each say which weights"),
        (["--pretrained", "--model-args", "{pretrained: true}"], "keep one of them"),
        (["--init-partial"], "init_partial=True needs --init-weights or --pretrained"),
        (["--optim", "{fusion_update: sgd, burnin_update: 2}"], "part of darknet's rule"),
    ],
)
def test_a_contradiction_within_the_command_line_is_an_error(config, words, message):
    file = config("epochs: 8\naugment: {augmentation: inception}\npreprocess: {protocol: timm}")
    with pytest.raises(UserError, match=message):
        parse(Recipe, ["-c", file, *words])


def test_a_contradiction_within_a_file_is_an_error(config):
    with pytest.raises(UserError, match="epochs=3 and steps=40 both say"):
        parse(Recipe, ["-c", config("epochs: 3\nsteps: 40")])
