"""Folders that systems put among images: thumbnails, recycle bins and copies of attributes. They are left out."""

NAMES = frozenset(
    {
        "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
        "__macosx", "lost+found", "$recycle.bin", "system volume information",
        "network trash folder", "temporary items",
    }
)  # fmt: skip
"""Names in lower case: Synology, QNAP, macOS, ext4, Windows, AFP. Names that begin with a dot are ignored anyway."""


def is_clutter(name: str) -> bool:
    """Return whether a folder of this name is a system's."""
    return name.lower() in NAMES


def is_in_clutter(path: str) -> bool:
    """Return whether a member of an archive is in such a folder."""
    return any(part in NAMES for part in path.lower().split("/")[:-1])
