"""A cfg network in training against steps that darknet computed with the rules of its GPU code."""

import pytest
import torch

from backbones.layers import WeightedShortcut
from tests.darknet.recordings import Recording, assert_close_to_scale

STEPS = [
    "burnin", "csp", "pools", "ws_none_none", "ws_per_channel_relu", "ws_per_channel_softmax", "ws_per_feature_relu",
    "ws_per_feature_softmax",
]  # fmt: skip
NAMES = {"weights": "weight", "biases": "bias", "scales": "weight"}


def parameter(module, name):
    """Return the tensor that darknet calls ``name``."""
    if isinstance(module, WeightedShortcut):
        return module.weight
    owner = module.conv if name == "weights" or module.bn is None else module.bn
    return getattr(owner, NAMES[name])


@pytest.mark.parametrize("name", STEPS)
def test_every_gradient_is_the_one_that_darknet_computes(name):
    """Except below a local average pool, whose windows at the edge have a wrong gradient in darknet."""
    recorded = Recording(f"gputrain_{name}")
    network = recorded.network(fusion_gradient="darknet").train()
    logits = network(recorded.images())
    loss = -(recorded["truth"].reshape(logits.shape) * logits.log_softmax(1)).sum()
    loss.backward()
    first = 1 + max((layer.index for layer in network.inferred_layers if layer.kind == "local_avgpool"), default=-1)
    compared = 0
    for index, module in list(enumerate(network.layers))[first:]:
        kind = "gpu_grad" if isinstance(module, WeightedShortcut) else "grad"
        for key, expected in recorded.layer(index, kind).items():
            gradient = parameter(module, key).grad
            assert gradient is not None
            assert_close_to_scale(-gradient, expected)
            compared += 1
    assert compared >= 7


@torch.no_grad()
@pytest.mark.parametrize("name", STEPS)
def test_every_layer_computes_in_training_what_darknet_computes(name):
    recorded = Recording(f"gputrain_{name}")
    outputs = recorded.network().train().outputs(recorded.images())
    for index, output in enumerate(outputs):
        assert_close_to_scale(output, recorded[f"out/{index:03d}"])
