"""The [net] section of a cfg becomes the recipe of the same training, or is refused."""

from pathlib import Path

import pytest
import yaml

from backbones.assembly.cfg_recipe import recipe_text
from backbones.errors import UserError
from tests.darknet.tiny_cfg import NET, write_tiny_cfg

FIXTURES = Path(__file__).parents[1] / "fixtures" / "darknet"


@pytest.fixture
def read(tmp_path):
    """Return the recipe of a small cfg."""

    def read(net: str = NET, shortcut: str = "") -> dict:
        file = write_tiny_cfg(tmp_path / "tiny.cfg", net=net, shortcut=shortcut)
        return yaml.safe_load(recipe_text(str(file)))

    return read


@pytest.mark.parametrize(
    ("net", "kinds", "blur"),
    [
        ("mixup=1", ["mixup"], 0),
        ("mixup=4", ["cutmix", "mosaic"], 0),
        ("mixup=1\nmosaic=1", ["mosaic"], 0),
        ("cutmix=1\nblur=1", ["cutmix"], 15),
        ("blur=8", [], 9),
    ],
)
def test_the_numbers_of_mixup_and_blur_are_spelled_out(read, net: str, kinds: list[str], blur: int):
    mixing = read(net=f"{NET}{net}")["mixing"]
    assert [kind for kind in ("cutmix", "mixup", "mosaic") if mixing[kind]] == kinds
    assert (mixing["prob"], mixing["blur"]) == (0.5 if kinds else 0.0, blur)


def test_the_threads_recipe_is_the_one_in_configs():
    ours = yaml.safe_load(recipe_text(str(FIXTURES / "csresnext50-ws-mi2.cfg")))
    theirs = yaml.safe_load((FIXTURES.parents[2] / "configs" / "omega.yaml").read_text())
    assert ours["preprocess"] == theirs["preprocess"]
    assert ours["augment"] == theirs["augment"]
    assert ours["mixing"] == theirs["mixing"]
    assert {key: ours[key] for key in ("steps", "batch_size", "lr", "img_size")} == {
        key: theirs[key] for key in ("steps", "batch_size", "lr", "img_size")
    }
    assert ours["optim"] == theirs["optim"]


def test_held_shortcuts_become_darknets_update_rule(read):
    optim = read(shortcut="burnin_update=2")["optim"]
    assert optim["fusion_update"] == "darknet"
    assert "burnin_update" not in optim  # each shortcut of the cfg network knows its own


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("policy=steps", r"tiny.cfg:5: \[net\] policy=steps has no recipe: only poly has one"),
        (f"{NET}adam=1", r"tiny.cfg:13: \[net\] adam=1 has no counterpart in a recipe"),
        (f"{NET}gaussian_noise=1", "gaussian_noise=1 has no counterpart"),
        (f"{NET}ema_alpha=.999", "ema_alpha=0.999 has no counterpart"),
        (f"{NET}loss_scale=128", "loss_scale=128 has no counterpart"),
        (f"{NET}badlabels_rejection_percentage=.2", "badlabels_rejection_percentage=0.2 has no counterpart"),
        (f"{NET}time_steps=3", "time_steps=3 has no counterpart"),
        (f"{NET}learning_rate_min=.1", "learning_rate_min=0.1 has no counterpart"),
        (f"{NET}mixp=1", "unknown option mixp. Did you mean mixup"),
    ],
)
def test_a_training_that_no_recipe_describes_is_refused(read, net, message):
    with pytest.raises(UserError, match=message):
        read(net=net)
