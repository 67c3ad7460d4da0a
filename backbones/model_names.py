"""Names of models: a wrong one is refused before timm is imported, which takes seconds."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from backbones.errors import UserError, did_you_mean
from backbones.models.variants import VARIANTS, canonical_name

ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""Prefixes of names that only timm can resolve, over the network or from a folder."""


def architecture_of(name: str) -> str:
    """Return our name of a model without the tag of its weights: ``resnet50.a1_in1k`` is a ``resnet50``."""
    return canonical_name(name).split(".", 1)[0]


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not among the known ones, with the nearest of these."""
    return f"unknown model {canonical_name(name)!r}.{did_you_mean(architecture_of(name), known)}"


def require_possible_name(name: str) -> None:
    """Raise UserError for a name that neither we nor timm have, as far as timm's source tells without running it.

    A name passes where it is a word of the source: deprecated names are not listed, but known to timm.
    """
    architecture, source = architecture_of(name), timm_source()
    if name.startswith(ELSEWHERE) or architecture in VARIANTS or not source:
        return
    if not re.search(rf"\b{re.escape(architecture)}\b", source):
        raise UserError(describe_unknown(name, [*VARIANTS, *names_in(source)]))


def names_in(source: str) -> list[str]:
    """Return the models that a source registers, sorted."""
    return sorted(re.findall(r"^@register_model\s*\ndef (\w+)", source, re.MULTILINE))


@cache
def timm_source() -> str:
    """Return the source of timm's models; empty where it is not to be found as files."""
    package = find_spec("timm")
    folders = package.submodule_search_locations if package is not None else None
    files = sorted(Path(folder) / "models" for folder in folders or [])
    return "\n".join(file.read_text(encoding="utf-8") for folder in files for file in sorted(folder.glob("*.py")))
