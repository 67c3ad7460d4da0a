import pytest
import torch

from backbones.commands.bench.options import Options
from backbones.commands.bench.subject import Subject, choose_settings
from backbones.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_what_is_unset_is_small_on_a_cpu_and_that_of_a_training_on_a_gpu():
    small, large = (choose_settings(Options(), device)[0] for device in (CPU, GPU))
    assert (small.precision, small.batch_size, small.img_size) == ("fp32", 4, 128)
    assert (large.precision, large.batch_size, large.img_size) == ("bf16", 256, 256)


def test_the_second_subject_differs_in_what_is_named_only():
    options = Options(model="csresnext50", model_args={"act": "leaky"}, against_precision="bf16", batch_size=2)
    first, second = choose_settings(options, CPU)
    assert (second.model, second.model_args, second.batch_size) == ("csresnext50", {"act": "leaky"}, 2)
    assert (first.precision, second.precision) == ("fp32", "bf16")


def test_another_network_does_not_take_over_the_arguments_of_the_first():
    options = Options(model="csresnext50", model_args={"act": "leaky"}, against="csdarknet53-omega")
    _, second = choose_settings(options, CPU)
    assert (second.model, second.model_args) == ("csdarknet53", {})


def test_equal_subjects_are_refused():
    with pytest.raises(UserError, match="both subjects are the same"):
        choose_settings(Options(model="csresnext50", against="csresnext50-omega"), CPU)


def test_arguments_that_the_network_does_not_take_are_refused():
    setting = choose_settings(Options(model="csresnext50", model_args={"act": "leeky"}), CPU)[0]
    with pytest.raises(UserError, match=r"csresnext50 cannot be built with .*Did you mean leaky"):
        Subject(setting, CPU)


def test_a_training_step_moves_the_weights_and_an_inference_does_not():
    setting = choose_settings(Options(model="test_resnet", batch_size=2, img_size=32), CPU)[0]
    subject = Subject(setting, CPU)
    before = [weight.clone() for weight in subject.network.parameters()]
    subject.train()
    after = [weight.clone() for weight in subject.network.parameters()]
    assert not any(map(torch.equal, before[:1], after[:1]))
    subject.network.eval()
    subject.infer()
    assert all(map(torch.equal, after, subject.network.parameters()))
