"""The detectors of docs/variants.md: torchvision's FasterRCNN on our networks, one training step and one image."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs" / "variants.md"
EXAMPLES = [code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "FasterRCNN" in code]


LIST, TRACED = EXAMPLES


@pytest.mark.parametrize(
    "example", [pytest.param(LIST, id="list"), pytest.param(TRACED, id="traced", marks=pytest.mark.slow)]
)
def test_the_detector_of_the_docs_learns_and_detects(example):
    torch.manual_seed(0)
    names = {}
    exec(example, names)
    detector = names["detector"]
    detector.transform.min_size, detector.transform.max_size = (64,), 96
    images = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)]
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
    losses = detector.train()(images, [{"boxes": boxes, "labels": torch.tensor([1])}] * 2)
    sum(losses.values()).backward()
    assert losses.keys() == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    merges = [p for name, p in names["body"].named_parameters() if name.endswith("merge.conv.weight")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in merges)
    with torch.no_grad():
        maps = detector.eval().backbone(images[0][None])
        assert [tuple(m.shape[1:]) for m in maps.values()] == [
            (256, 16, 20), (256, 8, 10), (256, 4, 5), (256, 2, 3), (256, 1, 2)
        ]  # fmt: skip
        assert {"boxes", "labels", "scores"} == detector(images)[0].keys()
