"""Choices by name. They are apart from the code that acts on them, so that specs and options need no torch."""

from typing import Literal

ActivationName = Literal["linear", "relu", "leaky", "mish", "swish", "prelu", "prelu_channel"]
WeightsType = Literal["none", "per_feature", "per_channel"]
Normalization = Literal["none", "relu", "softmax", "sigmoid"]
FusionGradient = Literal["true", "darknet"]
DropBlockKind = Literal["darknet", "paper"]
ClassOrder = Literal["darknet", "sorted"]
"""Order of the 1000 classes of ImageNet in a .weights file."""
OutputOrder = Literal["darknet", "sorted", "numeric", "text"]
"""Order of outputs without names. darknet and sorted: the 1000 classes of a .weights file. numeric and text: the
classes of the data set by their numbers, or as ImageFolder sorts them."""
