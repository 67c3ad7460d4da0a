"""``launch`` prints one file and nothing else, and refuses what would fail on the cluster."""

import stat
from pathlib import Path

import pytest

from backbones.commands.launch import main
from backbones.commands.launch.command import split_words
from backbones.errors import UserError

TRAINING = ["--", "--data-dir", "/storage/imagenet", "--output", "/storage/run"]
EXAMPLES = Path(__file__).parents[3] / "configs" / "cluster"
COMMANDS = {
    "job.sbatch": ["slurm", "--time", "24:00:00"],
    "trainjob.yaml": ["kubeflow", "--image", "IMAGE", "--storage", "CLAIM"],
    "skypilot.yaml": ["skypilot", "--accelerator", "H100", "--storage", "VOLUME"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_what_the_command_prints(name, capsys):
    main([*COMMANDS[name], "--nodes", "2", "--gpus", "8", *TRAINING])
    assert capsys.readouterr().out == (EXAMPLES / name).read_text()


def test_no_example_is_left_untested():
    assert {path.name for path in EXAMPLES.iterdir()} == set(COMMANDS)


def test_a_file_is_written_whole_and_the_next_command_is_said(tmp_path, capsys):
    main([*COMMANDS["job.sbatch"], "--nodes", "2", "--gpus", "8", "--output", str(tmp_path / "job"), *TRAINING])
    assert (tmp_path / "job").read_text() == (EXAMPLES / "job.sbatch").read_text()
    assert capsys.readouterr().out.split() == ["next", "sbatch", str(tmp_path / "job")]
    assert stat.S_IMODE((tmp_path / "job").stat().st_mode) & stat.S_IRUSR


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slrum", "--nodes", "2", "--gpus", "8", *TRAINING], "engine=slrum .* Did you mean slurm"),
        (["slurm", "--gpus", "8", *TRAINING], "--nodes is missing"),
        (["slurm", "--nodes", "two", "--gpus", "8", *TRAINING], "nodes=two is not valid: it must be an integer"),
        (["slurm", "--nodes", "2", "--gpus", "8"], "training options are missing: end the command with -- "),
        (["slurm", "--nodes", "2", "--gpus", "8", "--lr", "1"], "unknown option --lr(.|\n)*end the command with -- "),
        (["slurm", "--nodes", "2", "--gpus", "8", *TRAINING, "--batch-sise", "9"], "Did you mean --batch-size"),
        (["slurm", "--nodes", "2", "--gpus", "8", "--output", "/no/such/folder/job", *TRAINING], "/no/such/folder"),
    ],
)
def test_a_mistake_is_named_and_nothing_printed(words, message, capsys):
    with pytest.raises(UserError, match=message):
        main(words)
    assert capsys.readouterr().out == ""


def test_only_the_first_separator_counts():
    assert split_words(["slurm", "--", "--model-args", "--", "x"]) == (["slurm"], ["--model-args", "--", "x"])
    assert split_words(["slurm"]) == (["slurm"], None)
    assert split_words(["slurm", "--"]) == (["slurm"], [])
