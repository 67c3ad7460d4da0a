"""A small classifier with one weighted shortcut, as a cfg with darknet's options of training."""

from pathlib import Path

CFG = """[net]
height=32
width=32
channels=3
{net}
[conv]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=mish
[conv]
filters=4
activation=linear
[shortcut]
from=-2
weights_type=per_feature
weights_normalizion=softmax
{shortcut}
[avgpool]
[conv]
filters={classes}
activation=linear
[softmax]
"""
NET = "batch=64\nsubdivisions=4\nlearning_rate=0.05\npolicy=poly\npower=4\nmax_batches=500\nburn_in=20\nhue=.1\n"


def write_tiny_cfg(file: Path, *, classes: int = 1000, net: str = NET, shortcut: str = "") -> Path:
    """Write the cfg with further options of [net] and [shortcut], and return its file."""
    file.write_text(CFG.format(classes=classes, net=net, shortcut=shortcut))
    return file
