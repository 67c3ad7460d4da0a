"""What is refused before torch is imported; the messages themselves are in test_startup.py."""

import pytest

from backbones.assembly.request import require_one_start, require_possible, without_loading
from backbones.errors import UserError
from backbones.recipe import Recipe


def test_a_possible_recipe_passes(tmp_path):
    require_possible(Recipe(model="csresnext50", model_args={"act": "leaky", "num_classes": 3}, data_dir=str(tmp_path)))


def test_the_network_of_a_resumed_run_is_not_asked_for():
    require_possible(Recipe(model="gone.cfg", resume="RUN", loader="synthetic"))
    with pytest.raises(UserError, match=r"gone\.cfg"):
        require_possible(Recipe(model="gone.cfg", loader="synthetic"))


def test_the_arguments_that_load_weights_are_left_out():
    assert without_loading({"act": "mish", "pretrained": True, "checkpoint_path": "a"}) == {"act": "mish"}


@pytest.mark.parametrize(
    ("resume", "weights", "pretrained", "fits"),
    [
        (None, "a.pth", None, True), ("auto", "a.pth", None, True), ("auto", None, "true", True),
        ("run", "null", "false", True), ("run", None, None, True),
        ("run", "a.pth", None, False), ("run", None, "true", False),
    ],
)  # fmt: skip
def test_resuming_and_starting_from_weights_are_not_both_asked_for(resume, weights, pretrained, fits):
    if fits:
        require_one_start(resume, weights, pretrained)
    else:
        with pytest.raises(
            UserError, match=r"--resume run goes on .* (--init-weights a.pth|--pretrained) starts a new"
        ):
            require_one_start(resume, weights, pretrained)
