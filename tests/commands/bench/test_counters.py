import torch
from torch import nn

from backbones.commands.bench.counters import count, count_flops, count_kept, count_traffic

KB = 1000


def test_operators_count_what_they_read_and_write_and_views_count_nothing():
    x = torch.ones(250)  # 1000 bytes
    counted = count_traffic(lambda: x.view(5, 50).t().relu())
    assert (counted.moved, counted.launches) == (2 * KB, 1)
    y = torch.ones(250)
    counted = count_traffic(lambda: x.add_(y))
    assert (counted.moved, counted.launches) == (3 * KB, 1)
    counted = count_traffic(lambda: torch.empty(250))
    assert (counted.moved, counted.launches) == (0, 0)


def test_a_grouped_convolution_is_counted_by_its_groups():
    """Cells x outputs x inputs of a group x kernel x 2."""
    convolution = nn.Conv2d(8, 12, 3, padding=1, groups=4, bias=False)
    assert count_flops(lambda: convolution(torch.ones(1, 8, 5, 5))) == 5 * 5 * 12 * 2 * 9 * 2


def test_a_map_that_two_layers_keep_counts_once_and_weights_do_not_count():
    """The first layer keeps its input, the other two keep the map between them, and ReLU its own output."""
    first, a, b = nn.Linear(6, 4, bias=False), nn.Linear(4, 2, bias=False), nn.Linear(4, 2, bias=False)

    def forward(images: int) -> torch.Tensor:
        hidden = first(torch.ones(images, 6)).relu()
        return (a(hidden) + b(hidden.view(images, 4))).sum()

    assert count_kept(forward) == 4 * (6 + 4)


def test_a_step_is_split_into_what_grows_with_the_batch_and_what_moves_anyway():
    network = nn.Linear(5, 3, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batches = {images: torch.ones(images, 5) for images in (2, 3)}

    def forward(images: int) -> torch.Tensor:
        return network(batches[images]).square().mean()

    def step(images: int) -> None:
        forward(images).backward()
        optimizer.step()
        optimizer.zero_grad()

    counts = count(step, forward, network)
    assert counts.flops == 3 * 2 * 5 * 3
    whole = count_traffic(lambda: step(2)).moved
    assert counts.moved_anyway + 2 * counts.moved == whole
    assert counts.moved_anyway >= 4 * 15 * 3  # at least gradient, weight and momentum
    assert network.weight.grad is None
