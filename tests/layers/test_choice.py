import pytest

from backbones.layers.choice import require_choice


def test_a_known_word_passes():
    require_choice("act", "mish", ("mish", "leaky"))


def test_an_unknown_word_is_refused_with_the_option_and_the_nearest_word():
    with pytest.raises(ValueError, match=r"act='mihs' is not one of mish, leaky\. Did you mean mish\?"):
        require_choice("act", "mihs", ("mish", "leaky"))
