import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.layers import ConvNormAct, Maxout, WeightedShortcut
from backbones.layers.norm_act import Unmerged, finish, is_recomputable, merge, norm_act, set_recompute
from backbones.layers.pooling import HalvingMaxPool2d
from tests.layers.operator_calls import Calls


def create_map(*shape: int, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (4, 3, 5, 2), dtype=torch.float64).to(kind).requires_grad_()


def find_calls(run: Callable[[], Any]) -> list[str]:
    with Calls() as calls:
        run()
    return calls.own


def assert_same_as_modules(bn: nn.Module, act: nn.Module, x: Tensor) -> None:
    """Compare bit by bit, running statistics too, and find no operator of ours."""
    twin = copy.deepcopy(bn)
    with Calls() as calls:
        y = norm_act(x, bn, act)
    assert torch.equal(y, act(twin(x)))
    assert all(map(torch.equal, bn.state_dict().values(), twin.state_dict().values()))
    assert not calls.own


def test_training_measures_normalizes_and_activates_in_two_operators():
    assert find_calls(lambda: norm_act(create_map(), nn.BatchNorm2d(3).double(), nn.Mish())) == [
        "batch_statistics",
        "norm_merge",
    ]


@pytest.mark.parametrize("momentum", [0.01, 0.3])
def test_running_statistics_and_their_counter_are_those_of_batch_norm(momentum):
    ours, theirs = (nn.BatchNorm2d(3, momentum=momentum).double() for _ in range(2))
    for _ in range(2):
        x = create_map()
        torch.testing.assert_close(norm_act(x, ours, nn.Mish()), nn.Mish()(theirs(x)))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_evaluation_is_bit_equal_to_the_modules():
    bn = nn.BatchNorm2d(3).double()
    bn(create_map())
    assert_same_as_modules(bn.eval(), nn.Mish(), create_map())


@torch.no_grad()
def test_training_without_gradients_is_bit_equal_to_the_modules():
    assert_same_as_modules(nn.BatchNorm2d(3).double(), nn.Mish(), create_map())


class MyBatchNorm(nn.BatchNorm2d):
    """Subclass, which may compute anything."""


@pytest.mark.parametrize(
    ("bn", "act"),
    [
        (nn.BatchNorm2d(3, affine=False), nn.Mish()),
        (nn.BatchNorm2d(3, momentum=None), nn.Mish()),
        (nn.BatchNorm2d(3, track_running_stats=False), nn.Mish()),
        (nn.InstanceNorm2d(3), nn.Mish()),
        (nn.Identity(), nn.Mish()),
        (MyBatchNorm(3), nn.Mish()),
        (nn.BatchNorm2d(3), nn.GELU()),
    ],
    ids=str,
)
def test_modules_of_another_kind_are_called_as_they_are(bn, act):
    assert_same_as_modules(bn.double(), act, create_map())


def test_one_value_for_each_channel_is_refused_as_torch_does():
    for shape in ((1, 3, 1, 1), (1, 8, 2, 2)):
        unit = ConvNormAct(shape[1], 4, kernel=1, stride=2)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            unit(torch.randn(shape))


@pytest.mark.parametrize("shape", [(1, 3, 1, 2), (2, 3, 1, 1), (1, 3, 7, 9)])
def test_one_image_and_small_and_odd_maps_are_normalized_as_torch_does(shape):
    x, bn = create_map(*shape), nn.BatchNorm2d(3).double()
    torch.testing.assert_close(norm_act(x, bn, nn.Mish()), nn.Mish()(copy.deepcopy(bn)(x)))


@pytest.mark.parametrize(
    "create",
    [
        lambda: ConvNormAct(3, 3, kernel=3),
        lambda: WeightedShortcut((3, 3), weights_type="per_feature", act="mish"),
        lambda: Maxout((3, 3)),
        HalvingMaxPool2d,
    ],
)
def test_an_empty_batch_ends_as_without_recomputation(create):
    def run(*, on: bool) -> Any:
        module = create()
        set_recompute(module, on=on)
        maps = [torch.zeros(0, 3, 4, 4, requires_grad=True) for _ in getattr(module, "channels", (3,))]
        try:
            y = module(*maps)
            return y.shape, [x.shape for x in torch.autograd.grad(y.sum(), maps)]
        except (ValueError, RuntimeError) as error:
            return str(error)

    assert run(on=True) == run(on=False)


def test_recomputation_is_switched_off_and_on_in_every_layer():
    layers = nn.ModuleList([ConvNormAct(3, 3, kernel=1), WeightedShortcut((3, 3), act="mish"), Maxout((3, 3))])
    layers.append(HalvingMaxPool2d())

    def run() -> None:
        x = create_map(kind=torch.float32)
        layers[3](layers[2](layers[1](layers[0](x), x), x))

    set_recompute(layers, on=False)
    assert not find_calls(run)
    set_recompute(layers, on=True)
    assert find_calls(run) == ["batch_statistics", "norm_merge", "norm_merge", "norm_merge", "max_pool_2x2"]


@pytest.mark.parametrize("act", ["mish", "linear"])
def test_an_unmerged_map_is_finished_or_merged_with_the_same_result(act):
    x, other, bn = create_map(), create_map(), nn.BatchNorm2d(3).double()
    unmerged = Unmerged(x, bn, nn.SiLU())
    shortcut = WeightedShortcut((3, 3), act=act)
    torch.testing.assert_close(shortcut(unmerged, other), shortcut(finish(unmerged), other))
    assert find_calls(lambda: shortcut(unmerged, other)) == ["batch_statistics", "norm_merge"]


def test_a_plain_sum_of_finished_maps_needs_no_operator():
    assert merge(create_map(), [create_map()], [create_map().shape[1]] * 2, act=nn.Identity()) is None


def test_maps_of_different_types_are_left_to_torch():
    """An image in single precision meets maps of autocast."""
    first, other = create_map(kind=torch.bfloat16), create_map(kind=torch.float32)
    shortcut = WeightedShortcut((3, 3), act="mish")
    assert not find_calls(lambda: shortcut(first, other))
    assert shortcut(first, other).dtype == torch.float32


@pytest.mark.filterwarnings("ignore")
def test_tracers_and_transforms_of_functions_see_the_modules():
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(is_recomputable(x.reshape(1, 1, 2, -1)))
        return x * 1

    x = torch.ones(2, 2, 2)
    look(x)
    torch.jit.trace(look, x, check_trace=False)
    torch.func.vmap(look)(x)
    torch.func.jvp(look, (x,), (x,))
    assert seen == [True, False, False, False]


def test_a_traced_layer_has_no_call_back_into_python():
    layer = nn.Sequential(ConvNormAct(3, 3, kernel=1), HalvingMaxPool2d()).eval()
    graph, _ = torch.jit._get_trace_graph(layer, (torch.randn(1, 3, 4, 4),))
    assert "PythonOp" not in str(graph)
    assert "_Halve" not in str(graph)


class Layers(nn.Module):
    """Every layer that recomputes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.maxout = ConvNormAct(3, 3, kernel=1), HalvingMaxPool2d(), Maxout((3, 3))
        self.shortcut = WeightedShortcut((3, 3), weights_type="per_feature", normalization="softmax", act="mish")

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.maxout(self.shortcut(self.conv.convolve(x), x), x))


def test_a_compiled_step_consists_of_torchs_own_operations_and_agrees():
    from functorch.compile import make_boxed_func  # noqa: PLC0415
    from torch._dynamo.backends.common import aot_autograd  # noqa: PLC0415

    operations: list[str] = []

    def record(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    layers = Layers().double()
    twin, x = copy.deepcopy(layers), create_map(2, 3, 6, 5)
    compiled = torch.compile(twin, backend=aot_autograd(fw_compiler=record), fullgraph=True)
    results = []
    for network, run in ((layers, layers), (twin, compiled)):
        y = run(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *network.parameters()])
        results.append((y.detach(), gradients, network.state_dict()))
    torch.testing.assert_close(*results)
    assert any("mish" in name for name in operations)
    assert not any("backbones" in name for name in operations)
