"""Top-k counts agree with a sort, and ties and broken numbers do not flatter."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.training.metrics import topk_correct


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_counts_equal_a_stable_sort(seed, rows, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 4, (rows, classes), generator=generator).float()  # many ties
    labels = torch.randint(0, classes, (rows,), generator=generator)
    order = [sorted(range(classes), key=lambda k, row=row: (-row[k].item(), k)) for row in logits]
    expected = [sum(int(label) in o[:k] for label, o in zip(labels, order, strict=True)) for k in (1, 5)]
    assert topk_correct(logits, labels).tolist() == expected


def test_a_tie_goes_to_the_lower_class():
    logits = torch.zeros(2, 10)
    assert topk_correct(logits, torch.tensor([0, 5])).tolist() == [1, 1]


def test_a_row_with_nan_is_never_right():
    logits = torch.full((3, 4), float("nan"))
    assert topk_correct(logits, torch.tensor([0, 1, 2])).tolist() == [0, 0]


def test_an_infinite_logit_is_never_right():
    logits = torch.tensor([[float("inf"), 0.0]])
    assert topk_correct(logits, torch.tensor([0])).tolist() == [0, 0]


def test_other_values_of_k():
    logits = torch.arange(8.0).flip(0)[None]
    assert topk_correct(logits, torch.tensor([2]), ks=(2, 3)).tolist() == [0, 1]
