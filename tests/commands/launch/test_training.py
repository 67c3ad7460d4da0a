"""Training options are checked by the trainer's own recipe, and completed for a scheduler."""

import pytest

from backbones.commands.launch.request import Request
from backbones.commands.launch.training import cores_per_node, describe, read_training
from backbones.errors import UserError

GPUS = Request("slurm", nodes=2, gpus=8)
CPU = Request("slurm", nodes=2, gpus=0)
WORDS = ["--data-dir", "/imagenet", "--output", "runs/a"]


def test_words_are_kept_and_what_a_scheduler_needs_is_added():
    training = read_training([*WORDS, "--lr", "0.2"], GPUS)
    assert training.words == (*WORDS, "--lr", "0.2", "--resume", "auto", "--precision", "bf16")
    assert (training.run, training.recipe.lr) == ("runs/a", 0.2)


def test_a_job_without_gpus_uses_none():
    assert read_training(WORDS, CPU).words == (*WORDS, "--resume", "auto", "--device", "cpu")


def test_what_is_said_already_is_not_said_twice():
    words = [*WORDS, "--resume", "auto", "--precision", "fp32"]
    assert read_training(words, GPUS).words == tuple(words)
    assert read_training([*words, "--device", "cpu"], CPU).words == (*words, "--device", "cpu")


def test_a_precision_in_a_file_is_obeyed(config):
    file = config("precision: fp16\n")
    assert "--precision" not in read_training([*WORDS, "--config", file], GPUS).words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:2], "--output is missing after --"),
        (WORDS[2:], "--data-dir is missing after --"),
        ([*WORDS, "--resume", "runs/b"], "--resume runs/b: a job is always started with --resume auto"),
        ([*WORDS, "--epoch", "3"], "unknown option --epoch. Did you mean --epochs"),
        ([*WORDS, "--batch-size", "100"], r"batch_size=100 .* 2 hosts x 8 .* x 1 .* = 16: the nearest are 96 or 112"),
        ([*WORDS, "--grad-accum-steps", "3"], "batch_size=128 .* = 48: the nearest are 96 or 144"),
        ([*WORDS, "--batch-size", "8"], "batch_size=8 .* = 16: the nearest are 16[.]"),
    ],
)
def test_what_would_fail_on_the_cluster_is_refused_here(words, message):
    with pytest.raises(UserError, match=message):
        read_training(words, GPUS)


def test_random_images_need_no_folder():
    assert read_training(["--output", "runs/a", "--loader", "synthetic"], GPUS).recipe.data_dir is None


def test_each_process_gets_a_core_for_each_decoding_thread_and_one_more():
    recipe = read_training([*WORDS, "--workers", "6"], GPUS).recipe
    assert cores_per_node(GPUS, recipe) == 8 * 7
    assert cores_per_node(CPU, recipe) == 7
    assert cores_per_node(Request("slurm", nodes=2, gpus=8, cpus=32), recipe) == 32


def test_a_job_is_described_in_a_line():
    recipe = read_training([*WORDS, "--model", "resnet50"], GPUS).recipe
    assert describe(GPUS, recipe) == "resnet50 on 2 x 8 GPUs, 128 images per step, 8 in each process"
    assert describe(CPU, recipe) == "resnet50 on 2 x the CPU, 128 images per step, 64 in each process"
