"""The list of bad images that training leaves out, as a verification updates it."""

from collections.abc import Mapping
from pathlib import Path

from backbones.dataset.quarantine import FILE, Entries, write_quarantine
from backbones.dataset.verification.findings import Findings
from backbones.errors import UserError

REASON_PREFIX = "verify: "
"""Prefix of the reasons that `verify` wrote. Rows without it were added by hand and are kept."""


def exclude_bad_images(root: Path, before: Entries, findings: Findings) -> Entries:
    """Write the bad images to the list in ``root`` where that changes it, and return its entries.

    Raises UserError where the list cannot be written.
    """
    bad = {
        split: {image: REASON_PREFIX + each.reason for image, each in found.bad.items()}
        for split, found in findings.splits.items()
    }
    entries = {split: bad[split] | select_hand_added(listed) for split, listed in before.items()}
    if entries != before:
        try:
            write_quarantine(root, entries)
        except OSError as error:
            raise UserError(
                f"{root / FILE} cannot be written: {error.strerror}.\n"
                f"`python -m backbones prepare {root} --out INDEX` gives the list a place: then verify INDEX."
            ) from None
    return entries


def select_hand_added(listed: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that `verify` did not write."""
    return {image: reason for image, reason in listed.items() if not reason.startswith(REASON_PREFIX)}
