import pytest

from backbones.commands.list import measure
from backbones.models.sizes import SIZES


@pytest.mark.parametrize("name", SIZES)
def test_the_recorded_size_is_that_of_the_network(name):
    assert SIZES[name] == measure(name)
