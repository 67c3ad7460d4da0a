"""The detectors of docs/variants.md: torchvision's FasterRCNN and RetinaNet on our networks, a training step each."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs" / "variants.md"
CODE = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
EXAMPLES = [code for code in CODE if "FasterRCNN" in code]
(RETINANET,) = [code for code in CODE if "RetinaNet" in code]
BOXES = torch.tensor([[8.0, 8.0, 40.0, 48.0]])


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
    losses = detector.train()(images, [{"boxes": BOXES, "labels": torch.tensor([1])}] * 2)
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


@pytest.mark.parametrize("neck", ["spp", "panet", "asff", "rfb", "rfbn", "bifpn"])
def test_a_retinanet_with_each_neck_of_the_docs_takes_a_step(neck):
    torch.manual_seed(0)
    small = RETINANET.replace("WIDTH = 256", "WIDTH = 32").replace(
        "features_only", "depths=[1, 1, 1, 1], features_only"
    )
    names = {}
    exec(small, names)
    assert neck in names["NECKS"]
    detector = names["create_detector"](neck, num_classes=3).train()
    detector.transform.min_size, detector.transform.max_size = (64,), 96
    optimizer = torch.optim.SGD(detector.parameters(), 0.01)
    images, targets = (
        [torch.rand(3, 64, 80), torch.rand(3, 72, 64)],
        [{"boxes": BOXES, "labels": torch.tensor([1])}] * 2,
    )
    losses = [sum(detector(images, targets).values())]
    losses[0].backward()
    still = [name for name, p in detector.backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    optimizer.step()
    losses.append(sum(detector(images, targets).values()))
    assert losses[1] < losses[0]
    maps = detector.backbone(torch.rand(2, 3, 50, 70))
    assert [tuple(m.shape) for m in maps.values()] == [(2, 32, 7, 9), (2, 32, 4, 5), (2, 32, 2, 3)]
