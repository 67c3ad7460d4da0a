import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import backbones
from backbones.darknet.cfg import parse_cfg
from backbones.darknet.labels import class_order
from backbones.darknet.network import DarknetNetwork
from backbones.darknet.weights import (
    WeightsHeader,
    find_cutoff,
    load_weights,
    read_weights,
    read_weights_header,
    save_weights,
)
from backbones.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"
WEIGHTS = FIXTURES / "ws_per_channel_softmax.weights"
CLASSIFIER = """
[conv]
batch_normalize=1
filters=4
size=3
pad=1
activation=mish
[conv]
filters=4
activation=linear
[shortcut]
from=-2
weights_type=per_channel
weights_normalizion=softmax
[batchnorm]
[avgpool]
[connected]
output=1000
batch_normalize=1
activation=linear
[softmax]
"""


@pytest.fixture
def classifier(network):
    torch.manual_seed(0)
    return network(CLASSIFIER)


@pytest.fixture
def file(classifier, tmp_path) -> Path:
    path = tmp_path / "a.weights"
    save_weights(classifier, path, "sorted")
    return path


def numbers(path: Path) -> np.ndarray:
    return np.fromfile(path, "<f4", offset=20)


def test_a_file_that_darknet_wrote_is_loaded_into_the_recorded_parameters(recording):
    recorded = recording("ws_per_channel_softmax")
    expected = recorded.network().state_dict()
    network = recorded.network()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    load_weights(network, WEIGHTS)
    assert all(value.equal(expected[key]) for key, value in network.state_dict().items())


def test_a_file_that_darknet_wrote_is_written_again_byte_for_byte(recording, tmp_path):
    network = recording("ws_per_channel_softmax").network()
    load_weights(network, WEIGHTS)
    save_weights(network, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == WEIGHTS.read_bytes()


def test_numbers_stand_in_darknets_order(classifier, file):
    """Convolution: shift first, then scale; connected: matrix before the scale."""
    conv, plain, shortcut, norm, _, connected, _ = classifier.layers
    expected = [
        *(conv.bn.bias, conv.bn.weight, conv.bn.running_mean, conv.bn.running_var, conv.conv.weight),
        *(plain.conv.bias, plain.conv.weight, shortcut.weight),
        *(norm.bias, norm.weight, norm.running_mean, norm.running_var),
        *(connected.bn.bias, connected.fc.weight, connected.bn.weight),
        *(connected.bn.running_mean, connected.bn.running_var),
    ]
    flat = torch.cat([tensor.detach().flatten() for tensor in expected])
    assert numbers(file).tolist() == flat.tolist()


@pytest.mark.parametrize(
    ("header", "size"),
    [(WeightsHeader(0, 2, 5, 2**40), 20), (WeightsHeader(0, 1, 0, 77), 16), (WeightsHeader(1, 0, 0, 9), 20)],
)
def test_headers_of_every_version_are_read_and_kept(classifier, tmp_path, header, size):
    path = tmp_path / "a.weights"
    save_weights(classifier, path, header=header)
    assert read_weights_header(path) == (header, size)
    assert load_weights(classifier, path) == header
    save_weights(classifier, tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()


def test_a_very_old_file_has_its_matrices_transposed(network, tmp_path):
    source = network("[connected]\noutput=5\nactivation=linear", size=2)
    save_weights(source, tmp_path / "new.weights")
    save_weights(source, tmp_path / "old.weights", header=WeightsHeader(0, 1001, 0))
    matrix = numbers(tmp_path / "new.weights")[5:].reshape(5, 12)
    assert (matrix == numbers(tmp_path / "old.weights")[5:].reshape(12, 5).T).all()
    target = network("[connected]\noutput=5\nactivation=linear", size=2)
    load_weights(target, tmp_path / "old.weights")
    assert target.layers[0].fc.weight.equal(source.layers[0].fc.weight)


def test_a_partial_file_fills_the_first_layers_only(classifier, network, tmp_path):
    path = tmp_path / "a.conv.3"
    save_weights(classifier, path, cutoff=3)
    other = network(CLASSIFIER)
    before = other.layers[5].fc.weight.clone()
    load_weights(other, path, cutoff=3)
    assert other.layers[1].conv.weight.equal(classifier.layers[1].conv.weight)
    assert other.layers[5].fc.weight.equal(before)


def test_classes_are_permuted_into_sorted_order_and_back(network, tmp_path):
    net = network("[avgpool]\n[connected]\noutput=1000\nactivation=linear")
    path = tmp_path / "a.weights"
    biases = np.arange(1000, dtype="<f4")
    path.write_bytes(WeightsHeader().to_bytes() + biases.tobytes() + np.zeros(3000, "<f4").tobytes())
    load_weights(net, path)
    assert net.layers[1].fc.bias[class_order()].equal(torch.arange(1000.0))
    save_weights(net, tmp_path / "b.weights")
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()
    load_weights(net, path, class_order="sorted")
    assert net.layers[1].fc.bias.equal(torch.arange(1000.0))


def test_another_number_of_classes_has_one_order(network, tmp_path):
    net = network("[avgpool]\n[connected]\noutput=10\nactivation=linear")
    save_weights(net, tmp_path / "a.weights", "darknet")
    save_weights(net, tmp_path / "b.weights", "sorted")
    assert (tmp_path / "a.weights").read_bytes() == (tmp_path / "b.weights").read_bytes()


# Bad input: one line, and the network is unchanged.


def cut_to(share: float):
    return lambda data: data[: int(len(data) * share)]


def with_nan(data: bytes) -> bytes:
    return data[:20] + struct.pack("<f", float("nan")) * ((len(data) - 20) // 4)


def lying_header(data: bytes) -> bytes:
    """Say that 2^62 images were seen; the numbers end after the header."""
    return struct.pack("<iiiQ", 0, 2, 5, 2**62)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_to(0.83), r"a\.weights has [\d,]+ bytes, but this network needs exactly 32,692"),
        (cut_to(0.5), "needs exactly 32,692"),
        (lambda data: data[:25], "has 25 bytes, but"),
        (lambda data: data[:10], "has 10 bytes: that is no .weights file"),
        (lambda data: data[:18], "has 18 bytes: that is no .weights file"),
        (cut_to(0), "has 0 bytes: that is no .weights file"),
        (lambda data: data * 2, "has 65,384 bytes, but this network needs exactly 32,692"),
        (lambda data: data + b"\0", "has 32,693 bytes"),
        (with_nan, "layer 0 has biases that are not finite"),
        (lying_header, "has 20 bytes, but"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(classifier, file, damage, message):
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=message) as refused:
        load_weights(classifier, file)
    assert "\n" not in str(refused.value)
    assert all(value.equal(before[key]) for key, value in classifier.state_dict().items())


def test_a_partial_file_is_recognized_in_the_message(classifier, tmp_path):
    save_weights(classifier, tmp_path / "a.conv.3", cutoff=3)
    with pytest.raises(UserError, match=r"if it is a partial file, load_weights\(..., cutoff=3\) takes it"):
        load_weights(classifier, tmp_path / "a.conv.3")


def test_the_weights_of_another_network_are_refused(file):
    with pytest.raises(UserError, match="this network needs exactly 82,"):
        load_weights(backbones.create_model("csresnext50"), file)


def test_a_missing_file_is_named(classifier, tmp_path):
    with pytest.raises(UserError, match="there is no weights file"):
        load_weights(classifier, tmp_path / "none.weights")


@pytest.mark.parametrize("cutoff", [0, 8, -1])
def test_a_cutoff_outside_the_network_is_refused(classifier, file, cutoff):
    with pytest.raises(UserError, match=rf"cutoff={cutoff} must lie in \[1, 7\]"):
        load_weights(classifier, file, cutoff=cutoff)


def test_what_is_not_finite_is_not_written(classifier, tmp_path):
    torch.nn.init.constant_(classifier.layers[1].conv.bias, float("inf"))
    with pytest.raises(UserError, match="layer 1 has biases that are not finite"):
        save_weights(classifier, tmp_path / "a.weights")
    assert not (tmp_path / "a.weights").exists()


def test_numbers_of_other_layers_are_noticed_by_their_variances(classifier, file):
    data = np.frombuffer(file.read_bytes()[20:], "<f4")
    file.write_bytes(file.read_bytes()[:20] + np.roll(data, 50).tobytes())
    with pytest.raises(UserError, match=r"layer \d has negative variances: these are weights of another network"):
        load_weights(classifier, file)


def test_an_enormous_file_is_refused_unread(classifier, file):
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)  # a hole: it takes no space
    with pytest.raises(UserError, match="has 1,099,511,627,776 bytes, but"):
        load_weights(classifier, file)


@torch.no_grad()
def test_darknets_order_of_classes_is_a_permutation_of_the_logits_also_behind_a_batch_normalization(
    classifier, tmp_path
):
    """The connected classifier has batch normalization: its scales and statistics belong to the classes, too."""
    torch.manual_seed(0)
    net = classifier
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    save_weights(net, tmp_path / "a.weights", "sorted")
    images = torch.rand(2, 3, 8, 8)
    logits = {}
    for order in ("darknet", "sorted"):
        load_weights(net, tmp_path / "a.weights", order)
        logits[order] = net.eval()(images)
    assert torch.allclose(logits["darknet"][:, torch.as_tensor(class_order())], logits["sorted"], atol=1e-6)
    assert not torch.allclose(logits["darknet"], logits["sorted"], atol=1e-3)


def test_tensors_are_read_by_name_and_the_network_stays(classifier, file):
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    expected = {name: value for name, value in before.items() if "num_batches" not in name}
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
    found = read_weights(classifier, file, "sorted")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert not any(parameter.any() for parameter in classifier.parameters())


@pytest.mark.parametrize("order", ["sorted", "darknet"])
def test_a_classifier_of_another_size_is_read_whole(network, classifier, file, order):
    """The file has 1000 classes, of which every tensor of a [connected] with a batchnorm has a row each."""
    small = network(CLASSIFIER.replace("output=1000", "output=10"))
    rows = torch.arange(1000) if order == "sorted" else class_order().argsort()
    found = read_weights(small, file, order)
    expected = classifier.state_dict()
    for name, value in small.state_dict().items():
        if "num_batches" not in name:
            given = expected[name][rows] if value.shape[:1] == (10,) else expected[name]
            assert torch.equal(found[name], given), name


@pytest.mark.parametrize("size", [-4, 4, -4 * 1000 * 8])
def test_a_file_that_no_number_of_classes_explains_is_refused(network, file, size):
    content = file.read_bytes()
    file.write_bytes(content[:size] if size < 0 else content + bytes(size))
    with pytest.raises(UserError, match="bytes, but this network needs exactly"):
        read_weights(network(CLASSIFIER.replace("output=1000", "output=10")), file)


def test_the_number_of_layers_in_a_partial_file_is_found(classifier, file, tmp_path):
    save_weights(classifier, tmp_path / "part.weights", cutoff=2)
    assert find_cutoff(classifier, tmp_path / "part.weights") == 2
    assert find_cutoff(classifier, file) is None


# Files of two real darknets: first layers, longer files, variances at and below 0.


def recorded_file(recorded, tmp_path: Path, name: str = "file/full") -> Path:
    path = tmp_path / "darknet.weights"
    path.write_bytes(recorded[name].numpy().tobytes())
    return path


@pytest.mark.parametrize("darknet", ["alexeyab", "pjreddie"])
def test_first_layers_are_cut_off_as_darknet_partial_does(recording, tmp_path, darknet):
    recorded = recording(f"weights_{darknet}")
    network = DarknetNetwork(parse_cfg(recorded.meta["cfg"]))
    load_weights(network, recorded_file(recorded, tmp_path))
    save_weights(network, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == recorded["file/full"].numpy().tobytes()
    header = WeightsHeader(0, 2, 5 if darknet == "alexeyab" else 0)
    for cutoff in (2, 4, 6):
        save_weights(network, tmp_path / "a", cutoff=cutoff, header=header)
        assert (tmp_path / "a").read_bytes() == recorded[f"file/partial_{cutoff}"].numpy().tobytes()


@pytest.mark.parametrize("cutoff", [1, 2, 4, 6])
def test_first_layers_are_read_from_a_longer_file(recording, tmp_path, cutoff):
    recorded = recording("weights_alexeyab")
    file = recorded_file(recorded, tmp_path)
    whole = DarknetNetwork(parse_cfg(recorded.meta["cfg"]))
    load_weights(whole, file)
    first = DarknetNetwork(parse_cfg(recorded.meta["cfg"], layers=cutoff))
    other = DarknetNetwork(parse_cfg(recorded.meta["cfg"]))
    load_weights(first, file)
    load_weights(other, file, cutoff=cutoff)
    for name, value in first.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
        assert torch.equal(value, other.state_dict()[name]), name
    assert read_weights(other, file, cutoff=cutoff).keys() == {
        name for name in first.state_dict() if "num_batches" not in name
    }


def test_a_longer_file_is_refused_where_its_name_says_the_number_of_layers(classifier, file):
    content = file.read_bytes()
    for name, message in (("a.conv.3", "a.conv.3 has 32,692 bytes, but"), ("b.weights", "32,695 bytes, but")):
        path = file.with_name(name)
        path.write_bytes(content if name == "a.conv.3" else content + b"abc")
        with pytest.raises(UserError, match=message):
            load_weights(classifier, path, cutoff=3)


def test_a_longer_file_without_a_cutoff_is_told_of_it(network, file):
    with pytest.raises(UserError, match=r"load_weights\(..., cutoff=N\) reads the first N"):
        load_weights(network("[conv]\nfilters=4"), file)


@torch.no_grad()
def test_variances_at_and_just_below_zero_are_computed_with_as_darknet_does(recording, tmp_path, close_to_scale):
    """A genuine file of darknet has the variance -7e-44."""
    recorded = recording("bn_variance_negative")
    source = recorded.network()
    assert source.layers[0].bn.running_var.min() < -8e-6
    save_weights(source, tmp_path / "a.weights")
    network = DarknetNetwork(parse_cfg(recorded.meta["cfg"])).eval()
    load_weights(network, tmp_path / "a.weights")
    for index, output in enumerate(network.outputs(recorded.images())):
        close_to_scale(output, recorded[f"out/{index:03d}"])


def test_a_variance_that_makes_nan_is_refused(recording, tmp_path):
    network = recording("bn_variance_below_minus_eps").network()
    with pytest.raises(UserError, match="layer 0 has negative variances: these are weights of another network"):
        save_weights(network, tmp_path / "a.weights")


@torch.no_grad()
@pytest.mark.parametrize("levels", [(1, 2, 3), (1, 2, 3, 4)])
def test_feature_maps_come_from_first_layers_and_from_whole_files(tmp_path, levels):
    torch.manual_seed(0)
    whole = backbones.create_model("csresnext50").eval()
    save_weights(whole, tmp_path / "a.weights")
    save_weights(whole, tmp_path / "a.conv.81", cutoff=81)
    images = torch.rand(1, 3, 64, 64)
    expected = whole.forward_intermediates(images, indices=list(levels), intermediates_only=True)
    for name, cutoff in (("a.weights", None), ("a.conv.81", 81)):
        features = backbones.create_model("csresnext50", features_only=True, out_indices=levels).eval()
        load_weights(features, tmp_path / name, cutoff=cutoff)
        assert all(torch.equal(a, b) for a, b in zip(features(images), expected, strict=True))
