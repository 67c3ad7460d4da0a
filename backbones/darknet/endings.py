"""Kinds of darknet's files, told by the endings of their names."""

import re

PARTIAL = re.compile(r"\.conv\.(\d{1,6})$")
"""Ending of a file with the first layers only, and their number, as darknet's users name it."""


CFG_HINT = " A darknet network is named by its file, as path/to/network.cfg."
"""End of the message about an unknown name of a network."""


def is_cfg(name: str) -> bool:
    """Tell whether ``name`` is a cfg file rather than the name of a model."""
    return name.endswith(".cfg")


def is_weights_file(name: str) -> bool:
    """Return whether a file is one of darknet by its name: ``X.weights`` or ``X.conv.N``."""
    return name.endswith(".weights") or PARTIAL.search(name) is not None
