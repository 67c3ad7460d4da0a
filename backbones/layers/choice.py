"""The check of a word against the known choices, with an error that names the option and the nearest choices."""

from collections.abc import Iterable

from backbones.errors import did_you_mean


def require_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` that names ``option``, unless ``value`` is one of ``choices``."""
    known = tuple(choices)
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise ValueError(f"{option}={value!r} is not one of {', '.join(known)}.{hint}")
