"""Networks are compiled where they should be, and a machine without a compiler is named early."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.errors import UserError
from backbones.layers import DropBlock2d, set_drop_block_progress
from backbones.recipe import Recipe
from backbones.training import compilation
from backbones.training.compilation import (
    choose_mode,
    compile_network,
    compile_networks,
    compile_validation,
    keep_gradients,
    require_compiler,
    split_at_buckets,
)
from tests.training.make_runs import BATCH, make_run, network, same, train, weights

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ROOT = Path(__file__).parents[2]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_a_mode_for_gpus_is_the_default_one_on_a_cpu(mode):
    assert (choose_mode(mode, CPU), choose_mode(mode, GPU)) == ("default", mode)


def test_a_recipe_without_compilation_leaves_the_network_alone(graphs):
    model = network()
    compile_networks(Recipe(torchcompile=False), CPU, [model])
    model(torch.rand(2, 3, 6, 6))
    assert graphs() == 0


def test_each_size_of_input_has_a_graph_of_its_own(graphs):
    """A second size would else be compiled for all sizes, and the first one would be compiled again."""
    model = network()
    compile_network(model, "default", CPU)
    for images in (2, 3, 4, 2, 3, 4):
        model(torch.rand(images, 3, 6, 6))
    assert graphs() == 3


def test_a_moving_schedule_compiles_nothing_again(graphs):
    model = nn.Sequential(DropBlock2d(block_size=2), network(dropout=0.2))
    compile_network(model, "default", CPU)
    run = make_run(model, micro_batches=2, ema=True, on_step=lambda share: set_drop_block_progress(model, share))
    train(run)
    first = graphs()
    train(run)
    assert (first, graphs(), run.step) == (1, 1, 8)


def test_the_average_moves_while_the_network_is_compiled(graphs):
    """At step 1 it is the network; then each step keeps half of it."""
    model = network()
    compile_network(model, "default", CPU)
    run = make_run(model, ema=True)
    assert run.ema is not None
    seen: list[list[torch.Tensor]] = []
    run.on_step = lambda _: seen.append(weights(run))
    train(run)
    expected = seen[1]
    for state in [*seen[2:], weights(run)]:
        expected = [
            (old + new) / 2 if new.is_floating_point() else new for old, new in zip(expected, state, strict=True)
        ]
    assert graphs() == 1
    torch.testing.assert_close(list(run.ema.module.state_dict().values()), expected)


def test_validation_is_compiled_before_the_first_step(graphs):
    phases = []
    model = network()
    compile_network(model, "default", CPU)
    run = make_run(model, padded_batch=BATCH, recipe=Recipe(img_size=6, torchcompile=True))
    compile_validation(run, phases.append)
    assert (graphs(), phases) == (1, ["the compilation of val", "step 1"])


def test_an_eager_run_has_nothing_to_compile_before_the_first_step(graphs):
    compile_validation(make_run())
    assert graphs() == 0


@pytest.mark.parametrize(
    ("mode", "steps", "device", "kept"),
    [
        ("reduce-overhead", 2, GPU, True),
        ("max-autotune", 2, GPU, True),
        ("default", 2, GPU, False),
        (False, 2, GPU, False),
        ("reduce-overhead", 1, GPU, False),
        ("reduce-overhead", 2, CPU, False),
    ],
)
def test_gradients_are_kept_where_cuda_graphs_would_overwrite_them(mode, steps, device, kept):
    model = network()
    recipe = Recipe(torchcompile=mode, grad_accum_steps=steps)
    assert keep_gradients(recipe, device, model.parameters()) is kept
    assert all((p.grad is not None) is kept for p in model.parameters())


def test_kept_gradients_stay_in_their_memory_and_train_alike():
    run, plain = (make_run(micro_batches=2, keeps_gradients=kept) for kept in (True, False))
    keep_gradients(Recipe(torchcompile="reduce-overhead", grad_accum_steps=2), GPU, run.model.parameters())
    places = [p.grad.data_ptr() for p in run.model.parameters() if p.grad is not None]
    train(run)
    train(plain)
    assert [p.grad.data_ptr() for p in run.model.parameters() if p.grad is not None] == places
    assert same(weights(run), weights(plain))


@pytest.mark.parametrize(
    ("version", "checkpointing", "splits"),
    [("2.13.0", True, False), ("2.13.0", False, True), ("2.14.1+cu130", True, True), ("3.0.0a0", True, True)],
)
def test_before_torch_2_14_a_graph_with_checkpointing_is_not_split(monkeypatch, version, checkpointing, splits):
    monkeypatch.setattr(torch, "__version__", version)
    with torch._dynamo.config.patch(optimize_ddp=not splits):
        split_at_buckets(grad_checkpointing=checkpointing)
        assert torch._dynamo.config.optimize_ddp is splits


def test_without_compilation_no_compiler_is_needed(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    require_compiler(False, CPU)


@pytest.mark.parametrize("command", ["no-such-compiler", "no-such-compiler -O2"])
def test_a_compiler_that_is_not_there_is_named(monkeypatch, command):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(
        UserError, match=r"--torchcompile: there is no C\+\+ compiler no-such-compiler.*name one in CXX"
    ):
        require_compiler("default", CPU)


def test_missing_headers_of_python_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(UserError, match=r"Python.h is missing. Install the headers of Python \(python3-dev\)"):
        require_compiler("default", CPU)


@pytest.mark.parametrize(
    ("capability", "triton", "path", "message"),
    [
        ((6, 1), True, "/", "GTX 1080 is older than compute capability 7.0"),
        ((9, 0), False, "/", "Triton, .* is not installed. Install it with pip install triton"),
        ((9, 0), True, "/", "there is no C compiler, .* Install gcc"),
    ],
)
def test_what_a_gpu_needs_is_named(monkeypatch, capability, triton, path, message):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "GTX 1080")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: triton or None)
    monkeypatch.setenv("PATH", path)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=message):
        require_compiler("reduce-overhead", GPU)


@pytest.fixture(scope="module", params=["plain", "checkpointing", "unsplit"])
def ranks(request, tmp_path_factory) -> tuple[str, dict]:
    """What rank 0 of two compiled ones saw."""
    output = tmp_path_factory.mktemp("compiled") / "seen.json"
    command = [sys.executable, "-m", "tests.probes.compiled_ranks", request.param, str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(output.read_text())


@pytest.mark.slow
def test_the_all_reduce_of_a_bucket_begins_before_the_backward_pass_ends(ranks):
    """With two micro-batches, in the second one alone. Where torch may not split the graph, nothing overlaps."""
    kind, seen = ranks
    first, second = seen["events"][-2:]
    assert not any(event.startswith("bucket") for event in first)
    last_backward = max(i for i, event in enumerate(second) if event.startswith("backward"))
    early = [event for event in second[:last_backward] if event.startswith("bucket")]
    assert early == ([] if kind == "unsplit" else ["bucket0", "bucket1", "bucket2"])


@pytest.mark.slow
def test_compiled_ranks_have_the_mean_gradient_of_eager_ones(ranks):
    assert ranks[1]["error"] < 1e-5


@pytest.mark.slow
def test_compiled_ranks_have_one_graph_for_training_and_one_for_evaluation(ranks):
    assert ranks[1]["graphs"] == [1, 2]


def test_the_backend_is_the_one_that_makes_code():
    assert compilation.BACKEND == "inductor"
