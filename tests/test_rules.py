import pytest

from backbones.rules import require_drop_block, require_fusion


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("per_features", "relu"), "Did you mean per_feature"),
        (("per_feature", "rely"), "Did you mean relu"),
        (("per_feature", "relu", "rtue"), "Did you mean true"),
        (("per_feature", "sigmoid", "darknet"), "no rule for normalization='sigmoid'"),
        (("none", "relu"), "nothing to normalize"),
    ],
)
def test_a_fusion_of_unknown_or_unfitting_words_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        require_fusion(*choices)


@pytest.mark.parametrize(
    ("probability", "size", "kind", "message"),
    [(1.0, 7, "darknet", r"in \[0, 1\)"), (0.1, 0, "paper", "at least 1"), (0.1, 7, "papre", "Did you mean paper")],
)
def test_squares_that_cannot_be_dropped_are_refused(probability, size, kind, message):
    with pytest.raises(ValueError, match=message):
        require_drop_block(probability, size, kind)
