"""Networks from cfg texts against what darknet computes for the same text."""

import pytest
import torch

SMALL = ["activations", "head", "local_avgpool", "maxout", "maxpool", "reorg", "reorg_old", "route_groups"]
SHORTCUTS = [
    f"ws_{weights}_{normalization}{suffix}"
    for weights, normalization in (
        ("per_feature", "relu"), ("per_feature", "softmax"), ("per_channel", "relu"), ("per_channel", "softmax"),
    )
    for suffix in ("", "_pos")
]  # fmt: skip


@pytest.mark.parametrize("name", [*SMALL, "ws_none_none", *SHORTCUTS])
@torch.no_grad()
def test_every_layer_computes_what_darknet_computes(recording, close_to_scale, name):
    """Recorded on a CPU, where a relu share has no floor."""
    recorded = recording(name)
    network = recorded.network(relu_floor=0.0)
    found = network.outputs(recorded.images())
    assert len(found) == len(recorded.meta["layers"])
    for index, output in enumerate(found):
        close_to_scale(output, recorded[f"out/{index:03d}"])
