"""A network that cannot train on the images is refused before anything is written."""

import pytest
import torch

from backbones.assembly.probe import require_fitting_network
from backbones.errors import UserError
from backbones.recipe import Recipe


def recipe(**changes) -> Recipe:
    return Recipe(**{"model": "test_resnet", "img_size": 32, "batch_size": 4} | changes)


UNFIT = {
    "grey network": ({"model_args": {"in_chans": 1}}, r"2 x 3 x 32 x 32 .*1 channels.*\nImages have 3 channels"),
    "transformer": ({"model": "vit_tiny_patch16_224"}, r"cannot train on micro-batches .*224.*\nAnother --img-size"),
    "one value": ({"batch_size": 1, "img_size": 16}, r"1 x 3 x 16 x 16 .*more than 1 value.*\nBatchNorm needs more"),
    "no pooling": (
        {"model": "csresnext50", "model_args": {"global_pool": "", "depths": (1, 1, 1, 1)}},
        r"csresnext50 (returns \(2, .*, not logits of 10 classes|cannot train)",
    ),
    "feature maps": ({"model_args": {"features_only": True}}, r"cannot be built with|returns list, not logits"),
    "unknown option": ({"model_args": {"bogus": 1}}, r"cannot be built with --model-args \{'bogus': 1\}"),
}


@pytest.mark.parametrize(("changes", "message"), UNFIT.values(), ids=UNFIT)
def test_a_network_that_does_not_fit_is_refused_with_the_reason(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        require_fitting_network(recipe(**changes), 10, processes=1)


def test_the_micro_batch_of_a_process_counts_not_the_whole_batch() -> None:
    with pytest.raises(UserError, match="1 x 3 x 16 x 16"):
        require_fitting_network(recipe(batch_size=4, img_size=16), 10, processes=4)
    require_fitting_network(recipe(batch_size=8, img_size=16), 10, processes=4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "csresnext50_ws_mi2", "img_size": 256, "batch_size": 1024},
        {"model": "csdarknet53_omega_mi_db_ip", "model_args": {"depths": (1, 1, 1, 1, 1)}},
        {"model": "vit_tiny_patch16_224", "model_args": {"img_size": 32}},
    ],
)
def test_a_network_that_fits_costs_no_random_number(changes: dict) -> None:
    before = torch.get_rng_state()
    require_fitting_network(recipe(**changes), 10, processes=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_needs_real_numbers_is_tried_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeedsNumbers(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not x.sum().item()
            return x.new_zeros(len(x), 10)

    monkeypatch.setattr("backbones.assembly.probe.create_network", lambda *_, **__: NeedsNumbers())
    require_fitting_network(recipe(), 10, processes=1)
