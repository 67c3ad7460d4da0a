"""CSResNeXt-50: a 7x7 stem, grouped bottlenecks, four cross stages.

The first spec is the published cfg. The cfgs of the others were attachments to darknet issue #4662 that no longer
exist. The docstring below each spec says what is certain and what we inferred. docs/variants.md gives the evidence and
the other readings, which are options of `backbones.create_model`.
"""

from dataclasses import replace

from backbones.models.spec import Backbone, Block, Fusion, Stage, Stem, with_depths
from backbones.models.variants import register

CSRESNEXT50 = Backbone(
    stem=Stem(64, kernel=7, stride=2, pool=True),
    block=Block("bottleneck", groups=32),
    # The published cfg has activations in the split of stage 4, but not in those of stages 2 and 3.
    stages=(
        #  depth width   out  down
        Stage(3,  128,  256, None, entry=64),
        Stage(3,  256,  512,  256, linear_split=True),
        Stage(5,  512, 1024,  512, linear_split=True),
        Stage(2, 1024, 2048, 1024),
    ),
)  # fmt: skip
"""The published csresnext50-omega, layer by layer; ``act="leaky"`` makes it the plain csresnext50."""
register("csresnext50", CSRESNEXT50, top1=79.8, top5=95.2, certainty="exact")

CSRESNEXT50_WS = replace(CSRESNEXT50, fusion=Fusion(weights="per_feature", normalization="relu"))
"""Certain: weighted shortcuts, relu. Inferred: all 13 of them, one weight for each input."""
register("csresnext50_ws", CSRESNEXT50_WS, parent="csresnext50", top1=78.7, top5=94.7, certainty="high")

CSRESNEXT50_WS_MI2 = replace(CSRESNEXT50_WS, fusion=Fusion("stage", "per_feature", "softmax"))
"""Certain: multi-input shortcuts, softmax. Inferred: the last one of each stage takes all its outputs."""
register("csresnext50_ws_mi2", CSRESNEXT50_WS_MI2, parent="csresnext50_ws", top1=79.9, top5=95.3, certainty="medium")

MORELAYERS = with_depths(CSRESNEXT50, (3, 4, 6, 3))
"""Only the name is known. Inferred: the block counts of ResNeXt-50 in place of 3, 3, 5, 2."""
register("csresnext50_morelayers", MORELAYERS, parent="csresnext50", top1=79.4, top5=95.2, certainty="low")

SUB = replace(CSRESNEXT50, downsample="concat")
"""Certain: two branches, 3x3 convolution and max pool, both of stride 2. Inferred: stages 2 to 4, concatenated."""
register("csresnext50sub", SUB, parent="csresnext50", top1=79.5, top5=95.3, certainty="medium-low")

SUB_MI2 = replace(SUB, fusion=replace(CSRESNEXT50_WS_MI2.fusion, burnin_update=2))
"""Certain: sub with the shortcuts of ws_mi2. Inferred: both of these, and weights held for two burn-ins."""
register("csresnext50sub_mi2", SUB_MI2, parent="csresnext50sub", top1=79.4, top5=95.3, certainty="medium-low")

SUB_MO = replace(SUB, fusion=Fusion("stage", maxout="stage"))
"""Certain: as sub_mi2, with route and maxout in place of weighted shortcuts. Inferred: at the end of stages only."""
register("csresnext50sub_mo", SUB_MO, parent="csresnext50sub", top1=79.2, top5=95.1, certainty="medium-low")
