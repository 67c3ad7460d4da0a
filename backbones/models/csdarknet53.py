"""CSDarknet-53: a full-size stem, two-convolution blocks, five cross stages."""

from backbones.models.registry import register
from backbones.models.spec import Backbone, Block, Stage, Stem

# fmt: off
CSDARKNET53 = Backbone(
    stem=Stem(32, kernel=3),
    block=Block("darknet"),
    stages=(
        #  depth width   out  down
        Stage(1,   64,   64,   64, hidden=32),
        Stage(2,   64,  128,  128),
        Stage(8,  128,  256,  256),
        Stage(8,  256,  512,  512),
        Stage(4,  512, 1024, 1024),
    ),
)
# fmt: on
"""The published csdarknet53-omega, layer by layer."""
register("csdarknet53", CSDARKNET53, top1=78.7, top5=94.8, certainty="exact")
