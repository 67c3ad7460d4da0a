"""Rows 39 and 40: .weights and .cfg files that are cut, garbled or absurd."""

import pytest
import torch

from backbones.darknet.network import load_cfg
from backbones.darknet.weights import load_weights, save_weights
from backbones.errors import UserError
from tests.darknet.tiny_cfg import CFG, NET

TEXT = CFG.format(classes=4, net=NET, shortcut="")


@pytest.fixture
def cfg(tmp_path):
    def write(text: str):
        (tmp_path / "x.cfg").write_text(text)
        return tmp_path / "x.cfg"

    return write


def share(part: float):
    return lambda content: content[: int(part * len(content))]


def all_nan(content: bytes) -> bytes:
    return content[:20] + torch.full(((len(content) - 20) // 4,), float("nan")).numpy().tobytes()


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "damage",
    [
        share(0.83),
        share(0.5),
        share(0.25),
        lambda content: content[:10],
        lambda _: b"",
        lambda content: 2 * content,
        all_nan,
    ],
)
def test_weights_that_are_cut_doubled_or_not_finite_are_refused(cfg, tmp_path, damage):
    model, file = load_cfg(cfg(TEXT)), tmp_path / "x.weights"
    save_weights(model, file)
    load_weights(model, file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"x\.weights"):
        load_weights(model, file)


MISTAKES = {
    "negative filters": ("filters=4", "filters=-8"),
    "huge filters": ("filters=4", "filters=2000000000"),
    "a layer that does not exist": ("from=-2", "from=99"),
    "no from": ("from=-2\n", ""),
    "groups that do not divide": ("filters=4\nactivation=linear", "filters=4\ngroups=3\nactivation=linear"),
    "stride 0": ("stride=4", "stride=0"),
    "an unknown section": ("[avgpool]", "[avgpol]"),
    "a misspelt activation": ("activation=mish", "activation=mihs"),
    "a misspelt option": ("filters=4\nsize", "filtres=4\nsize"),
    "a word for a number": ("batch_normalize=1", "batch_normalize=yes"),
    "a misspelt type": ("per_feature", "per_feture"),
}


@pytest.mark.parametrize("mistake", [pytest.param(name, marks=pytest.mark.fault(40)) for name in MISTAKES])
def test_a_cfg_with_a_mistake_is_refused_with_its_line(cfg, mistake):
    wrong, right = MISTAKES[mistake][1], MISTAKES[mistake][0]
    assert right in TEXT
    with pytest.raises(UserError, match=r"x\.cfg:\d+"):
        load_cfg(cfg(TEXT.replace(right, wrong, 1)))


@pytest.mark.fault(29)
def test_the_value_of_an_option_that_darknet_reads_wrongly_is_refused(cfg):
    with pytest.raises(UserError, match=r"activation.*mihs.*Did you mean mish"):
        load_cfg(cfg(TEXT.replace("activation=mish", "activation=mihs")))
