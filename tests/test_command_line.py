"""Command line > file > default, and every mistake named."""

from dataclasses import dataclass, field

import pytest

from backbones.command_line import find_value, parse
from backbones.errors import UserError
from backbones.recipe import Recipe


@dataclass(frozen=True)
class Copy:
    """A command with one word, one required option and a flag."""

    source: str = field(metadata={"positional": "SRC"})
    """File to copy."""
    out: str
    """Copy."""
    json: bool = False
    """Write JSON."""


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(config):
    file = config("lr: 0.3\nseed: 5\noptim:\n  power: 2")
    recipe = parse(Recipe, ["--config", file, "--lr", "0.7"])
    assert (recipe.lr, recipe.seed, recipe.optim.power, recipe.optim.momentum) == (0.7, 5, 2, 0.9)


def test_the_file_given_by_the_program_loses_against_the_one_on_the_command_line(config, tmp_path):
    first = tmp_path / "first.yaml"
    first.write_text("lr: 0.1\nseed: 1")
    recipe = parse(Recipe, ["-c", config("lr: 0.2")], config=first)
    assert (recipe.lr, recipe.seed) == (0.2, 1)


@pytest.mark.parametrize(
    ("argv", "read"),
    [
        (["--batch-size", "7"], lambda r: r.batch_size == 7),
        (["--batch_size=7"], lambda r: r.batch_size == 7),
        (["-b", "7"], lambda r: r.batch_size == 7),
        (["--smoothing", "0"], lambda r: r.mixing.smoothing == 0),
        (["--mixing.smoothing", "0"], lambda r: r.mixing.smoothing == 0),
        (["--augmentation", "inception", "--scale", "[0.2,0.4]"], lambda r: r.augment.inception.scale == (0.2, 0.4)),
        (["--no-tf32"], lambda r: r.tf32 is False),
        (["--no-channels-last"], lambda r: r.channels_last is False),
        (["--channels-last", "false"], lambda r: r.channels_last is False),
        (["--no-mosaic"], lambda r: r.mixing.mosaic is False),
        (["--log-wandb", "--lr", "1e-4"], lambda r: r.log_wandb and r.lr == 1e-4),
        (["--model-ema"], lambda r: r.model_ema),
        (["--model-args", "{act: leaky}"], lambda r: r.model_args == {"act": "leaky"}),
        (["--epochs", "null"], lambda r: r.epochs is None),
        (["--torchcompile", "--lr", "0.2"], lambda r: (r.torchcompile, r.lr) == ("default", 0.2)),
        (["--torchcompile", "true"], lambda r: r.torchcompile == "default"),
        (["--torchcompile", "reduce-overhead"], lambda r: r.torchcompile == "reduce-overhead"),
        (["--torchcompile=max-autotune"], lambda r: r.torchcompile == "max-autotune"),
        (["--torchcompile", "false"], lambda r: r.torchcompile is False),
        (["--torchcompile", "--no-torchcompile"], lambda r: r.torchcompile is False),
    ],
)
def test_options_can_be_spelled_as_timm_spells_them(argv, read):
    assert read(parse(Recipe, argv))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lrr", "1"], r"unknown option --lrr\. Did you mean --lr\?"),
        (["--smoothingg", "0"], "Did you mean --smoothing"),
        (["--optim.momentumm", "0"], "unknown option --optim.momentumm.*--optim.momentum"),
        (["--loader", "dal"], "loader=dal is not valid: it must be dali or reference or synthetic. Did you mean dali"),
        (["--seed", "1.5"], "seed=1.5 is not valid: it must be an integer"),
        (["--epochs", "many"], "epochs=many is not valid: it must be an integer or null"),
        (["--scale", "[1,2,3]"], "augment.inception.scale=.* must be 2 numbers"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["--ema.decay", "2"], r"ema.decay=2.0 must lie in \[0, 1\)"),
        (["junk"], "unexpected word 'junk'"),
        (["--scale", "0.1", "1.0"], "unexpected word '1.0': --scale takes 2 numbers, as"),
        (["--torchcompile", "fast"], "unexpected word 'fast': --torchcompile takes true or false or default or red"),
        (["--torchcompile=max-autotun"], "torchcompile=max-autotun is not valid: .* Did you mean max-autotune"),
        (["--lr", "--seed", "1"], "--lr needs a value: a number"),
        (["--zzz", "1"], r"unknown option --zzz\.$"),
        (["--no-mosaic=true"], "--no-mosaic takes no value"),
        (
            ["--wandb-mode", "ofline"],
            "log.wandb_mode=ofline is not valid: it must be online or offline or null. Did you",
        ),
        (["--conf", "x.yaml"], "unknown option --conf"),
        (["--output", ""], "output='' must not be empty"),
        (["--model="], "model='' must not be empty"),
        (["--lr", ".inf"], "lr=inf must be positive and finite"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(argv, message):
    with pytest.raises(UserError, match=message):
        parse(Recipe, argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothing: 0", "recipe.yaml: unknown option 'smoothing'. It belongs to the group mixing"),
        ("optim:\n  momentumm: 1", "recipe.yaml: optim: unknown option 'momentumm'. Did you mean momentum"),
        ("lr: 1\nlr: 2", r"recipe.yaml:2: duplicate key 'lr' \(also on line 1\)"),
        ("lr: fast", "recipe.yaml: lr=fast is not valid: it must be a number"),
        ("seed: 010", "seed=010 is not valid: it must be an integer"),
        ("loader: torch", "loader=torch is not valid: it must be dali or reference or synthetic"),
        ("optim: 3", "recipe.yaml: optim: expected `option: value` lines, found 3"),
        ("- lr", "recipe.yaml: expected `option: value` lines"),
        ("lr: [", "recipe.yaml:1: "),
    ],
)
def test_a_mistake_in_a_file_is_named(config, text, message):
    with pytest.raises(UserError, match=message):
        parse(Recipe, ["--config", config(text)])


def test_the_help_shows_dashes_and_what_each_field_means(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(Recipe, ["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--batch-size" in shown
    assert "--batch_size" not in shown
    assert "Images per optimizer step" in shown


def test_no_words_at_all_are_the_defaults():
    assert parse(Recipe, []) == Recipe()


def test_the_command_line_wins_wherever_the_file_is_named(config):
    for words in (["--lr", "0.3", "-c", config("lr: 0.2")], ["-c", config("lr: 0.2"), "--lr", "0.3"]):
        assert parse(Recipe, words).lr == 0.3
    assert parse(Recipe, ["--lr=0.3", f"--config={config('lr: 0.2')}"]).lr == 0.3


def test_a_path_below_the_home_folder_is_written_out(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = parse(Recipe, ["--output=~/run", "-c", config("data_dir: ~/images")])
    assert (recipe.output, recipe.data_dir) == ("/home/somebody/run", "/home/somebody/images")


@pytest.mark.parametrize(
    "words",
    [
        ["a", "--out", "b", "--json"],
        ["--json", "a", "--out=b"],
        ["--out", "b", "--json", "true", "a"],
        ["--json", "--source", "a", "--out", "b"],
    ],
)
def test_a_positional_word_may_come_anywhere(words):
    assert parse(Copy, words) == Copy(source="a", out="b", json=True)


def test_a_file_can_give_what_is_required(config):
    assert parse(Copy, ["-c", config("source: a\nout: b")]) == Copy(source="a", out="b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SRC is missing"),
        (["a"], "--out is missing"),
        (["a", "b", "--out", "c"], "unexpected word 'b'"),
        (["a", "--source", "b", "--out", "c"], "unexpected word 'a'"),
    ],
)
def test_what_is_missing_or_too_much_is_an_error_with_the_usage(words, message):
    with pytest.raises(UserError, match=rf"{message}(?s:.*)usage: prog copy SRC --out OUT \[options\]"):
        parse(Copy, words, prog="prog copy")


def test_the_help_begins_with_the_usage(capsys):
    with pytest.raises(SystemExit):
        parse(Copy, ["--help"], prog="python -m backbones copy", description="Copy a file.")
    assert capsys.readouterr().out.startswith("usage: python -m backbones copy SRC --out OUT [options]\n\nCopy a file.")


@pytest.mark.parametrize(
    ("words", "value"),
    [(["--resume", "a", "--lr", "1"], "a"), (["--resume=a", "--resume", "b"], "b"), (["--lr=1"], None)],
)
def test_one_option_can_be_read_before_the_others(words, value):
    assert find_value(Recipe, words, "resume") == value


@dataclass(frozen=True)
class Join:
    """A command with one word, and any number of further ones."""

    target: str = field(metadata={"positional": "TARGET"})
    """File to write."""
    parts: tuple[str, ...] = field(default=(), metadata={"positional": "PART...", "repeated": True})
    """Files to join."""
    fast: bool = False
    """Hurry."""


@pytest.mark.parametrize("parts", [(), ("a",), ("a", 'b "c"\n', "null", "[1, 2]", "\udce9", "1")])
def test_a_repeated_word_takes_all_that_are_left_as_they_are(parts):
    assert parse(Join, ["x", *parts[:1], "--fast", *parts[1:]]) == Join("x", parts, fast=True)


def test_a_file_may_list_the_repeated_words_and_the_command_line_wins(config):
    file = config("target: x\nparts: [a, b]")
    assert parse(Join, ["-c", file]) == Join("x", ("a", "b"))
    assert parse(Join, ["-c", file, "--target", "y", "c"]) == Join("y", ("c",))


def test_the_usage_shows_repeated_words():
    with pytest.raises(UserError, match=r"TARGET is missing.\nusage: .* TARGET PART... \[options\]"):
        parse(Join, ["--fast"])
