"""Both ways to paste do the same, and the one for a GPU takes as many operators for 32 images as for 256."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.data.batch import Batch
from backbones.data.mixing import Mixer
from backbones.data.paste import MAX_PATCHES, Paste, Patch, paste_, paste_by_gather_, paste_by_slices_, tabulate
from backbones.recipe import Mixing

MIXINGS = {
    "mosaic and cutmix": Mixing(prob=1),
    "half of the groups": Mixing(),
    "all kinds": Mixing(mixup=True, prob=1),
    "mixup": Mixing(mosaic=False, cutmix=False, mixup=True, prob=1),
    "batch": Mixing(mixup=True, prob=1, sampling="batch"),
    "blur": Mixing(prob=1, blur=5),
}
both = pytest.mark.parametrize("paste_", [paste_by_slices_, paste_by_gather_])


class CountedOperators(TorchDispatchMode):
    """Counts the operators in the block, except those that only look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def make_batch(count: int, memory_format: torch.memory_format = torch.channels_last, size: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 3, size, size + 3, generator=generator).contiguous(memory_format=memory_format)
    return Batch(images, torch.arange(count) % 7, 1, 0)


def mix_with(paste: Paste, mixing: Mixing, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return Mixer(mixing, classes=7, seed=3, batch_size=len(batch.labels), paste=paste)(batch)


@both
def test_partners_are_pasted_as_they_were_before_mixing(paste_: Paste) -> None:
    images = torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 2).clone()
    found = paste_(images, [Patch(0, 1, 0, 0, 2, 2), Patch(1, 2, 0, 0, 2, 2), Patch(2, 0, 0, 0, 2, 1)])
    assert found.flatten(1).tolist() == [[1, 1, 1, 1], [2, 2, 2, 2], [0, 2, 0, 2]]
    assert found is images


@both
def test_means_are_taken_with_partners_as_they_were_before_mixing(paste_: Paste) -> None:
    images = torch.tensor([0.0, 2.0, 6.0])[:, None, None, None].expand(3, 1, 1, 2).clone()
    patches = [Patch(0, 1, 0, 0, 1, 2, 0.5), Patch(1, 0, 0, 0, 1, 1), Patch(2, 1, 0, 0, 1, 2, 0.5)]
    assert paste_(images, patches).flatten(1).tolist() == [[1, 1], [0, 2], [4, 4]]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("count", [1, 9, 33])
@pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)
def test_a_batch_is_mixed_to_the_same_bits_by_either(
    mixing: Mixing, count: int, memory_format: torch.memory_format
) -> None:
    slices = mix_with(paste_by_slices_, mixing, make_batch(count, memory_format))
    gather = mix_with(paste_by_gather_, mixing, make_batch(count, memory_format))
    for ours, expected in zip(gather, slices, strict=True):
        assert torch.equal(ours, expected)
        assert ours.stride() == expected.stride()


@both
def test_what_is_not_finite_stays_where_it_is_pasted(paste_: Paste) -> None:
    """A pixel that gets another image's value does not keep its own infinity, though others are averaged."""
    images = torch.full((3, 3, 4, 4), torch.inf)
    images[1:] = 2.0
    paste_(images, [Patch(0, 1, 0, 0, 2, 4), Patch(2, 1, 0, 0, 4, 4, 0.5)])
    assert images[0, :, :2].eq(2.0).all()
    assert images[0, :, 2:].isinf().all()


@pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)
def test_the_number_of_operators_does_not_depend_on_the_batch(mixing: Mixing) -> None:
    counts = []
    for count in (32, 256):
        batch = make_batch(count, size=12)
        with CountedOperators() as counted:
            mix_with(paste_by_gather_, mixing, batch)
        counts.append(counted.count)
    assert counts[0] == counts[1]


def test_a_cpu_takes_slices(monkeypatch) -> None:
    monkeypatch.setattr("backbones.data.paste.paste_by_gather_", None)
    assert paste_(torch.arange(2.0).view(2, 1, 1, 1), [Patch(0, 1, 0, 0, 1, 1)]).flatten().tolist() == [1, 1]


def test_nothing_to_paste_takes_no_operator() -> None:
    with CountedOperators() as counted:
        paste_by_gather_(torch.zeros(2, 3, 4, 4), [])
    assert counted.count == 1  # the zeros themselves


def test_the_table_has_a_row_for_each_image_that_changes() -> None:
    numbers, shares = tabulate([Patch(4, 1, 0, 2, 3, 5), Patch(7, 2, 0, 0, 9, 9, 0.5), Patch(4, 3, 3, 0, 5, 5)])
    none = (0, 0, 0, 0, 0)
    assert numbers[0].tolist() == [[4, 0, 2, 3, 5, 1], [4, 3, 0, 5, 5, 3], [4, *none]]
    assert numbers[1].tolist() == [[7, 0, 0, 9, 9, 2], [7, *none], [7, *none]]
    assert shares.tolist() == [[1, 1, 1], [0.5, 1, 1]]


def test_more_patches_than_a_mosaic_has_are_refused() -> None:
    patches = [Patch(5, 0, row, 0, row + 1, 1) for row in range(MAX_PATCHES + 1)]
    with pytest.raises(ValueError, match="image 5 has more than 3 patches"):
        tabulate(patches)
