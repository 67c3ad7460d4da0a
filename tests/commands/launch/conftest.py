"""Requests and training options for the tests of all engines."""

from collections.abc import Callable
from functools import cache

import pytest

from backbones.commands.launch.request import Engine, Request
from backbones.commands.launch.training import Training, read_training

SITE = {
    "slurm": {},
    "kubeflow": {"image": "registry/backbones:1", "storage": "claim"},
    "skypilot": {"accelerator": "H100", "storage": "volume"},
}
WORDS = ("--data-dir", "/storage/imagenet", "--output", "/storage/run")

read_once = cache(read_training)
"""To parse a recipe takes half a second."""


@pytest.fixture
def job() -> Callable[..., tuple[Request, Training]]:
    """The function that makes a job of two hosts with eight GPUs: job(engine, *more_training_words, **options)."""

    def make(engine: Engine, *words: str, **options) -> tuple[Request, Training]:
        request = Request(engine, **{"nodes": 2, "gpus": 8} | SITE[engine] | options)
        sizes = Request("slurm", request.nodes, request.gpus)
        return request, read_once((*WORDS, *words), sizes)

    return make
