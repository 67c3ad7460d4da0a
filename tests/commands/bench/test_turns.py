import torch

from backbones.commands.bench.turns import Rounds, Spread, Turn, spread, take_turns

CPU = torch.device("cpu")


def test_two_subjects_take_turns_and_the_first_round_is_left_out():
    """Before the rounds each action is called twice, to find out how long it takes."""
    calls = []
    actions = [lambda: calls.append("A"), lambda: calls.append("B")]
    rounds = take_turns(actions, rounds=2, seconds=1e-12, device=CPU)
    assert "".join(calls) == "AABB" + 3 * "ABBA"
    assert [len(turns) for turns in rounds.turns] == [2, 2]


def test_one_subject_has_one_turn_in_a_round():
    calls = []
    take_turns([lambda: calls.append("A")], rounds=3, seconds=1e-12, device=CPU)
    assert len(calls) == 2 + 4


def test_a_ratio_is_taken_round_by_round():
    """The machine is half as fast in the second round, for both subjects."""
    rounds = Rounds([[Turn(1.0, 4.0), Turn(2.0, 8.0)], [Turn(2.0, 4.0), Turn(4.0, 8.0)]])
    assert rounds.ratio([8, 8], by_cpu_time=False) == Spread(2.0, 2.0, 2.0)
    assert rounds.ratio([8, 4], by_cpu_time=True) == Spread(2.0, 2.0, 2.0)
    assert rounds.rate(0, 8) == Spread(6.0, 4.0, 8.0)


def test_a_spread_is_the_median_and_the_range():
    assert spread([3.0, 1.0, 9.0]) == Spread(3.0, 1.0, 9.0)
