import pytest

from backbones.darknet.endings import is_cfg, is_weights_file


@pytest.mark.parametrize(
    ("name", "expected"), [("a.weights", True), ("a.conv.53", True), ("a.conv.", False), ("a.pth", False)]
)
def test_darknets_files_are_known_by_their_names(name, expected):
    assert is_weights_file(name) is expected


@pytest.mark.parametrize(("name", "expected"), [("a/yolov4.cfg", True), ("csdarknet53", False), ("cfg", False)])
def test_a_cfg_is_told_by_its_ending(name, expected):
    assert is_cfg(name) is expected
