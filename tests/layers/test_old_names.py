import copy
import pickle

import torch
from torch import nn

from backbones.layers.old_names import accept_old_names


def create_network():
    stage = nn.ModuleDict({"last_shortcut": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    network = nn.ModuleDict({"stages": nn.ModuleList([stage])})
    accept_old_names(network)
    return network


def old_weights(network):
    return {name.replace("last_shortcut", "fuse"): value for name, value in network.state_dict().items()}


def test_old_and_new_names_load_the_same_weights_at_any_depth():
    source, target = create_network(), nn.ModuleDict({"part": create_network()})
    ours, theirs = source["stages"][0], target["part"]["stages"][0]
    target.load_state_dict({f"part.{name}": value for name, value in source.state_dict().items()})
    assert torch.equal(theirs["last_shortcut"].weight, ours["last_shortcut"].weight)
    target.load_state_dict({f"part.{name}": value + 1 for name, value in old_weights(source).items()})
    assert torch.equal(theirs["last_shortcut"].weight, ours["last_shortcut"].weight + 1)
    assert torch.equal(theirs["other"].bias, ours["other"].bias + 1)


def test_the_weights_that_are_given_stay_as_they_are():
    weights = old_weights(create_network())
    names = list(weights)
    create_network().load_state_dict(weights)
    assert list(weights) == names


def test_a_copied_and_a_pickled_network_still_know_the_old_names():
    source = create_network()
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        twin.load_state_dict(old_weights(source))
