"""Refuse a word that is not among the known ones, naming the option and the nearest choices."""

from collections.abc import Iterable

from backbones.errors import did_you_mean


def require_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``; ``option`` is named as the culprit."""
    known = tuple(choices)
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise ValueError(f"{option}={value!r} is not one of {', '.join(known)}.{hint}")
