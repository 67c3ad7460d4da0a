"""CSDarknet-53: a full-size stem, two-convolution blocks, five cross stages.

The first spec is the published cfg. The cfgs of the others were attachments to darknet issue #4662 that no longer
exist. The docstring below each spec says what is certain and what we inferred. docs/variants.md gives the evidence and
the other readings, which are options of `backbones.create_model`.
"""

from dataclasses import replace

from backbones.models.spec import Backbone, Block, DropBlock, Fusion, Stage, Stem
from backbones.models.variants import register

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
)  # fmt: skip
"""The published csdarknet53-omega, layer by layer."""
register("csdarknet53", CSDARKNET53, top1=78.7, top5=94.8, certainty="exact")

CSDARKNET53_WS = replace(CSDARKNET53, fusion=Fusion(weights="per_feature", normalization="relu"))
"""Certain: weighted shortcuts, relu. Inferred: all 23 of them, one weight for each input."""
register("csdarknet53_ws", CSDARKNET53_WS, parent="csdarknet53", top1=65.6, top5=87.3, certainty="high")

MI = replace(CSDARKNET53, fusion=Fusion("stage", "per_feature", "softmax", burnin_update=2))
"""Certain: multi-input shortcuts, softmax. Inferred: the last one of a stage takes all outputs, held at first."""
register("csdarknet53_omega_mi", MI, parent="csdarknet53", top1=78.6, top5=94.7, certainty="medium")

MI_DB = replace(MI, drop_block=DropBlock(stages=(-2, -1), probability=0.1, size=7))
"""Certain: omega_mi with DropBlock. Inferred: its strength; after the last shortcut of the last two stages."""
register("csdarknet53_omega_mi_db", MI_DB, parent="csdarknet53_omega_mi", top1=78.4, top5=94.5, certainty="medium-low")

MI_IP = replace(MI, pyramid="avgpool")
"""Certain: omega_mi with five averaged levels of the image. Inferred: each joins after the downsample of its size."""
register("csdarknet53_omega_mi_ip", MI_IP, parent="csdarknet53_omega_mi", top1=77.8, top5=94.3, certainty="medium-low")

MI_DB_IP = replace(MI_DB, pyramid="avgpool")
"""Certain: that it existed. Inferred: both of the above. No result was reported."""
register("csdarknet53_omega_mi_db_ip", MI_DB_IP, parent="csdarknet53_omega_mi_db", certainty="low")
