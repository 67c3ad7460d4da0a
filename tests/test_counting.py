import pytest
import timm
import torch
from torch import nn

from backbones.counting import StepCounter, count_per_image, imagine, kept_bytes

N = 4 * 100
"""Bytes of the vectors below."""


def vector(**options):
    return torch.ones(100, **options)


def counted(action):
    with StepCounter() as counter:
        action()
    return counter


def test_a_map_that_two_layers_keep_counts_once_and_parameters_and_the_input_do_not():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))  # ReLU and the last both keep its result
    image = torch.randn(2, 3, 5, 5)
    assert kept_bytes(lambda: network(image), [*network.parameters(), image]) == 4 * 2 * 8 * 5 * 5


def test_a_part_of_a_map_keeps_the_whole_storage():
    x = vector(requires_grad=True)
    assert kept_bytes(lambda: x.exp()[:50] ** 2, [x]) == N


def test_a_product_reads_two_and_writes_one():
    a, b = vector(), vector()
    assert counted(lambda: a * b).moved == 3 * N


def test_a_sum_in_place_reads_two_and_writes_one():
    a, b = vector(), vector()
    assert counted(lambda: a.add_(b)).moved == 3 * N


@pytest.mark.parametrize("name", ["fill_", "zeros_like", "copy_"])
def test_what_only_writes_does_not_read_what_it_overwrites(name):
    a, b = vector(), vector(dtype=torch.int8)  # a byte per number
    action = {"fill_": lambda: a.fill_(2), "zeros_like": lambda: torch.zeros_like(a), "copy_": lambda: a.copy_(b)}
    assert counted(action[name]).moved == N + {"copy_": 100}.get(name, 0)


def test_an_expanded_axis_is_read_once():
    a, b = vector(), torch.ones(1)
    assert counted(lambda: a * b.expand(100)).moved == 2 * N + 4


def test_views_and_allocations_neither_move_nor_launch():
    a = vector()
    counter = counted(
        lambda: (a.view(10, 10).t()[2:].detach(), torch.empty(5), torch.empty_like(a), a.as_strided_((2,), (1,)))
    )
    assert (counter.moved, counter.launches, counter.operators) == (0, 0, {})


def test_a_list_operator_in_place_is_one_launch():
    counter = counted(lambda: torch._foreach_add_([vector(), vector()], 1.0))
    assert counter.operators["aten::_foreach_add_"].launches == 1
    assert counter.operators["aten::_foreach_add_"].moved == 4 * N


def test_the_peak_is_of_what_is_alive_at_once():
    def action():
        x = vector()
        for _ in range(5):
            x = x * 2

    assert counted(action).peak == 2 * N


def test_a_known_tensor_is_not_alive():
    known = vector()
    with StepCounter([known]) as counter:
        known.add_(1)
    assert counter.peak == 0


@torch.library.custom_op("backbones_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return (x.exp() + x.exp()).log()


def test_an_operator_of_ours_counts_as_one_with_the_launches_that_the_caller_names():
    x = vector()
    with StepCounter(launches_of={"backbones_test::twice": 3}) as counter:
        twice(x)
    operator = counter.operators["backbones_test::twice"]
    assert list(counter.operators) == ["backbones_test::twice"]
    assert (operator.calls, operator.launches, operator.moved) == (1, 3, 2 * N)


def block():
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Mish(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def test_figures_per_image_follow_from_the_shapes_of_the_maps():
    """Kept in bfloat16: image, convolution's and BatchNorm's output, Mish's, and int64 places and pooled means."""
    pixels = 16 * 16
    maps = 2 * pixels * (3 + 8 + 8 + 8)
    pooled = 8 * pixels // 4 * 8 + 2 * 8  # places of the maxima; input of the last layer
    loss = 4 * 5  # logarithms of five classes
    labels = 0
    assert count_per_image(block, 16).kept == maps + pooled + loss + labels


def test_imagined_tensors_give_the_counts_of_real_ones():
    def count(network):
        images = torch.randn(4, 3, 16, 16)
        counter = StepCounter([*network.parameters(), *network.buffers(), images])
        with counter:
            counter.forward(lambda: network(images).square().mean()).backward()
        return counter

    real, network = count(block()), block()
    with imagine(network):
        imagined = count(network)
    assert imagined.operators == real.operators
    assert (imagined.kept, imagined.peak) == (real.kept, real.peak)


def test_a_network_of_timm_has_the_figures_that_were_recorded_with_another_counter():
    """cspresnext50, LeakyReLU, bfloat16, 256 pixels: 76.8 MB kept, 80.0 MB alive, 550 launches, 546 MB with weights."""
    network = lambda: timm.create_model("cspresnext50")  # noqa: E731
    counts = count_per_image(network, 256)
    weights = 18 * 20.57e6 / 16  # casts, and their reads in three convolutions, at the batch of 16 of the record
    assert counts.kept == pytest.approx(76.8e6, rel=0.01)
    assert counts.peak == pytest.approx(80.0e6, rel=0.03)
    assert counts.launches == pytest.approx(550, rel=0.01)
    assert counts.moved + weights == pytest.approx(546e6, rel=0.01)
