import pytest

from backbones.models.spec import Backbone, Block, Fusion, Stage, Stem


@pytest.fixture
def tiny_spec() -> Backbone:
    """Every feature of the big networks, four channels wide: partial residual, linear split, multi-input fusion."""
    return Backbone(
        stem=Stem(4, kernel=3, stride=2, pool=True),
        block=Block("bottleneck", groups=2),
        stages=(
            Stage(3, 4, 8, None, entry=2),
            Stage(2, 8, 16, 8, linear_split=True, hidden=4),
        ),
        fusion=Fusion("stage", "per_feature", "softmax"),
    )
