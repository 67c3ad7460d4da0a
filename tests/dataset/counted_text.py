"""Text that counts how often it is compared: a function that is quadratic in the classes shows in the count."""


class CountedText(str):
    """Text whose comparisons, of all instances together, are counted in ``comparisons``."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedText.comparisons += 1
        return str.__eq__(self, other)  # pyright: ignore[reportReturnType]

    def __hash__(self) -> int:
        return str.__hash__(self)


def counted_names(count: int) -> tuple[str, ...]:
    """Return ``count`` sorted names, and begin to count anew."""
    names = tuple(CountedText(f"n{k:08d}") for k in range(count))
    CountedText.comparisons = 0
    return names
