import pytest
import timm
import torch
from torch import nn

from benchmarks.networks import Setting, create_peer, inference, make_batch, to_floats, training

TINY = Setting(batch=2, size=32)


def tiny():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=1000)


def test_a_training_step_without_optimizer_changes_no_weight():
    network = tiny()
    before = [weight.clone() for weight in network.parameters()]
    training(network, TINY)()
    assert all(torch.equal(weight, old) for weight, old in zip(network.parameters(), before, strict=True))


def test_a_training_step_with_optimizer_changes_the_weights_and_leaves_no_gradient():
    network = tiny()
    before = [weight.clone() for weight in network.parameters()]
    training(network, TINY, optimizer=True)()
    assert any(not torch.equal(weight, old) for weight, old in zip(network.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in network.parameters())


def test_inference_runs_in_evaluation_mode_without_a_graph():
    network = tiny().train()
    seen = []
    network.register_forward_hook(lambda module, _, output: seen.append((module.training, output.requires_grad)))
    inference(network, TINY)()
    assert seen == [(False, False)]


def test_images_are_floats_from_0_to_1_in_channels_last_order():
    pixels, _ = make_batch(TINY)
    images = to_floats(pixels)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[1, 2], pixels[1, :, :, 2] / 255)


@pytest.mark.parametrize(("act", "kind"), [("leaky", nn.LeakyReLU), ("mish", nn.Mish)])
def test_timms_network_has_the_activation_of_ours(act, kind):
    with torch.device("meta"):
        network = create_peer("csresnext50", act)
    modules = {type(module) for module in network.modules()}
    assert {nn.LeakyReLU, nn.Mish} & modules == {kind}
