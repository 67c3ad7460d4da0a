"""A report says what is installed and which cores may be used."""

import pytest

from backbones.commands.doctor.versions import quota, version_of


def test_a_package_that_is_not_there_is_said_to_be_missing():
    assert version_of("no-such-package") == "not installed"


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("", None), ("250000 100000", 3), ("50000 100000", 1)]
)
def test_a_container_allows_the_cores_of_its_quota(text, cores):
    assert quota(text) == cores
