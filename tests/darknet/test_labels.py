import torch

from backbones.darknet.labels import class_order, to_darknet, to_sorted


def test_the_order_is_a_permutation_that_agrees_nowhere():
    order = class_order()
    assert order.sort().values.equal(torch.arange(1000))
    assert not (order == torch.arange(1000)).any()


def test_a_row_of_darknets_order_goes_where_its_synset_is():
    rows = torch.arange(1000) * 10
    assert to_sorted(rows)[class_order()[17]] == 170


def test_the_way_back_undoes_the_way_there():
    rows = torch.randn(1000, 3)
    assert to_darknet(to_sorted(rows)).equal(rows)
