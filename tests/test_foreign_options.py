"""Options of other trainers are taken where they mean the same, and refused with what to write where they do not."""

import pytest

from backbones.command_line import parse
from backbones.errors import UserError
from backbones.foreign_options import FOREIGN
from backbones.recipe import Recipe, Synthetic


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["--log-interval", "10"], lambda r: r.log.interval == 10),
        (["--model-ema-decay=0.9"], lambda r: r.ema.decay == 0.9),
        (["--no-model-ema-warmup"], lambda r: not r.ema.warmup),
        (["--augmentation", "inception", "--reprob", "0.25"], lambda r: r.augment.inception.erasing == 0.25),
        (["--wd", "1e-4"], lambda r: r.optim.weight_decay == 1e-4),
        (["--weight-decay", "1e-4"], lambda r: r.optim.weight_decay == 1e-4),
        (["--learning-rate", "0.2"], lambda r: r.lr == 0.2),
        (["--initial-checkpoint", "a.pth"], lambda r: r.init_weights == "a.pth"),
        (["--label-smoothing", "0.2"], lambda r: r.mixing.smoothing == 0.2),
    ],
)
def test_an_option_of_another_trainer_with_the_same_meaning_is_taken(words, read):
    assert read(parse(Recipe, words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--amp"], "--amp is an option of other trainers: write --precision bf16"),
        (["--opt", "adamw"], "leave it out, since the optimizer is always SGD"),
        (["--warmup-epochs", "5"], "write --burn-in STEPS"),
        (["--aa", "rand-m9"], "write --augmentation inception --auto randaugment"),
        (["--num-classes", "10"], "class folders of --data-dir"),
        (["--torchcompile-mode", "max-autotune"], "write --torchcompile MODE"),
        (["--drop", "0.2"], "drop_rate: 0.2"),
        (["--weights", "IMAGENET1K_V1"], "write --pretrained for the weights that timm publishes, or --init-weights"),
        (["--mixup", "0.8"], "--mixup takes true or false; --prob is the share"),
    ],
)
def test_another_option_of_another_trainer_is_refused_with_what_to_write(words, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(Recipe, words)
    assert "Did you mean" not in str(caught.value)


def test_options_of_other_trainers_mean_nothing_to_another_command():
    with pytest.raises(UserError, match=r"unknown option --amp\.$"):
        parse(Synthetic, ["--classes", "3", "--amp"])


def test_every_remedy_names_options_that_exist(capsys):
    with pytest.raises(SystemExit):
        parse(Recipe, ["--help"])
    known = {word.rpartition(".")[2].strip(",") for word in capsys.readouterr().out.split() if word.startswith("--")}
    for _, remedy in FOREIGN.values():
        named = {word.strip("(),;`")[2:] for word in remedy.split() if word.strip("(").startswith("--")}
        assert named - {"config_file"} <= known | {word.removeprefix("--") for word in known}
