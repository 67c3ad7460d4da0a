import copy
import pickle

import torch
from torch import nn

from backbones.layers.old_names import accept_old_name


def create_pair():
    module = nn.Sequential()
    module.add_module("new", nn.Linear(2, 2))
    module.add_module("other", nn.Linear(2, 2))
    accept_old_name(module, "old", "new")
    return module


def test_old_and_new_names_load_the_same_weights_at_any_depth():
    source, target = create_pair(), nn.ModuleDict({"part": create_pair()})
    weights = source.state_dict()
    target.load_state_dict({f"part.{name}": value for name, value in weights.items()})
    assert torch.equal(target["part"].new.weight, source.new.weight)
    renamed = {f"part.{name.replace('new.', 'old.')}": value + 1 for name, value in weights.items()}
    target.load_state_dict(renamed)
    assert torch.equal(target["part"].new.weight, source.new.weight + 1)
    assert torch.equal(target["part"].other.bias, source.other.bias + 1)


def test_the_weights_that_are_given_stay_as_they_are():
    weights = {name.replace("new.", "old."): value for name, value in create_pair().state_dict().items()}
    names = list(weights)
    create_pair().load_state_dict(weights)
    assert list(weights) == names


def test_a_copied_and_a_pickled_module_still_know_the_old_name():
    source = create_pair()
    weights = {name.replace("new.", "old."): value for name, value in source.state_dict().items()}
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        twin.load_state_dict(weights)
