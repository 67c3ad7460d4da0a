"""The launcher's words are understood, and what it did not do is said."""

import os

import pytest
import torch

from backbones.errors import UserError
from backbones.recipe import Recipe
from backbones.training import launch
from backbones.training.launch import (
    check_processes,
    has_static_graph,
    launch_command,
    mixed_precision,
    requested_processes,
    require_deterministic,
)

PYTHON = ["/usr/bin/python3", "/env/bin/accelerate", "launch"]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([*PYTHON, "--cpu", "--num_processes", "2", "train_imagenet.py"], 2),
        ([*PYTHON, "--num-processes=8", "train_imagenet.py"], 8),
        (["python", "-m", "accelerate.commands.launch", "--num_processes", "3", "x.py"], 3),
        ([*PYTHON, "train_imagenet.py", "--batch-size", "2"], None),
        (["bash", "-c", "accelerate launch --num_processes 2 x.py"], None),
        (["torchrun", "--nproc_per_node", "2", "x.py"], None),
        ([], None),
    ],
)
def test_the_processes_asked_for_are_read_from_the_launchers_words(words, count):
    assert requested_processes(words) == count


def test_the_processes_asked_for_are_read_from_a_launch_file(tmp_path):
    (tmp_path / "two.yaml").write_text("num_processes: 2\n")
    assert requested_processes([*PYTHON, "--config_file", str(tmp_path / "two.yaml"), "x.py"]) == 2
    assert requested_processes([*PYTHON, "--config_file", str(tmp_path / "none.yaml"), "x.py"]) is None


def test_a_launch_file_for_a_gpu_is_refused_without_one(monkeypatch, tmp_path):
    (tmp_path / "gpu.yaml").write_text("num_processes: 1\nuse_cpu: false\n")
    monkeypatch.setattr(
        launch, "_launcher_words", lambda: [*PYTHON, "--config_file", str(tmp_path / "gpu.yaml"), "x.py"]
    )
    monkeypatch.setattr(launch.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"asks for a GPU .* but torch sees none"):
        launch.create_accelerator()


def test_a_mixed_precision_that_the_trainer_lacks_is_refused():
    with pytest.raises(UserError, match="mixed_precision fp8, which is not one of no, bf16, fp16"):
        mixed_precision("auto", "fp8")


def test_the_variables_of_the_environment_are_looked_at_first(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE=two in the environment is not a number"):
        launch.create_accelerator(device="cpu")


def test_fewer_processes_than_asked_for_are_refused():
    with pytest.raises(UserError, match="asked for 2 processes but started 1"):
        check_processes(1, 2)


@pytest.mark.parametrize(("running", "requested"), [(1, None), (2, 2), (1, 0)])
def test_as_many_as_asked_for_are_fine(running, requested):
    check_processes(running, requested)


@pytest.mark.parametrize(
    ("precision", "launched", "result"),
    [
        ("auto", None, "no"),
        ("auto", "bf16", "bf16"),
        ("fp32", "no", "no"),
        ("bf16", "no", "bf16"),
        ("fp16", "fp16", "fp16"),
    ],
)
def test_recipe_and_launcher_agree_on_the_precision(precision, launched, result):
    assert mixed_precision(precision, launched) == result


@pytest.mark.parametrize(("precision", "launched"), [("fp32", "bf16"), ("fp16", "bf16")])
def test_recipe_and_launcher_that_contradict_each_other_are_refused(precision, launched):
    with pytest.raises(UserError, match=f"--precision {precision}, but accelerate .* {launched}"):
        mixed_precision(precision, launched)


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        (PYTHON, "accelerate launch"),
        (["/env/bin/accelerate-launch"], "accelerate launch"),
        (["python", "-m", "accelerate.commands.launch"], "accelerate launch"),
        (["/env/bin/python", "/env/bin/torchrun"], "torchrun"),
        (["python", "-m", "torch.distributed.run"], "torchrun"),
    ],
)
def test_the_command_to_go_on_repeats_how_the_run_was_launched(monkeypatch, launcher, command):
    words = [*launcher, "--config_file", "cpu 1.yaml", "train_imagenet.py", "--lr", "1"]
    monkeypatch.setattr(launch, "_launcher_words", lambda: words)
    assert launch_command() == f"{command} --config_file 'cpu 1.yaml' train_imagenet.py"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [(Recipe(), True), (Recipe(grad_accum_steps=2), False), (Recipe(torchcompile=True), False)],
)
def test_the_graph_is_static_where_torch_can_bear_it(recipe, expected):
    assert has_static_graph(recipe) is expected


def test_deterministic_means_that_torch_refuses_other_operations(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        require_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
    finally:
        torch.use_deterministic_algorithms(mode=False)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def test_the_network_is_looked_at_before_the_processes_meet(monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "prepare_network", lambda *, limit: seen.append(limit))
    monkeypatch.setattr(launch, "Accelerator", lambda **_: (_ for _ in ()).throw(RuntimeError("connection reset")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes did not come together within 33 s"):
        launch.create_accelerator(timeout=33)
    assert seen == [33]
