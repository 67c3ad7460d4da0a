"""A report says what is installed."""

from backbones.commands.doctor.versions import version_of


def test_a_package_that_is_not_there_is_said_to_be_missing():
    assert version_of("no-such-package") == "not installed"
