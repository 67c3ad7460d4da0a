import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.harness import Result, clock_for, compare, cpu_seconds, create_parser, measure, publish, tree_seconds


def scripted_clock(costs):
    """Return a clock that reads the costs from a list and still runs the action."""
    left = iter(costs)

    def clock(action):
        action()
        return next(left)

    return clock


def test_contenders_take_turns_there_and_back_in_each_round():
    order = []
    contenders = {name: lambda name=name: order.append(name) for name in "abc"}
    measure(contenders, rounds=1, clock=scripted_clock(range(12)))
    assert "".join(order) == "abccba" * 2


def test_a_round_is_the_mean_of_its_two_turns_and_the_first_round_is_dropped():
    turns = [100, 100, 100, 100, 1, 10, 30, 3]
    costs = measure({"a": int, "b": int}, rounds=1, clock=scripted_clock(turns))
    assert costs == {"a": [2.0], "b": [20.0]}


def test_a_cost_is_of_one_action_in_the_unit_that_is_asked_for():
    costs = measure({"a": int}, rounds=1, repeats=4, scale=1000, clock=scripted_clock([8.0] * 4))
    assert costs == {"a": [2000.0]}


def test_a_turn_repeats_its_action():
    calls = []
    measure({"a": lambda: calls.append(1)}, rounds=2, repeats=5, clock=scripted_clock(range(6)))
    assert len(calls) == 3 * 2 * 5


def test_a_ratio_is_of_costs_in_the_same_round():
    costs = {"a": [2.0, 9.0], "b": [1.0, 3.0]}
    assert compare(costs, {"a / b": ("a", "b")}) == {"a / b": [2.0, 3.0]}


def test_the_tree_counts_a_child_that_has_ended():
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    assert cpu_seconds(lambda: subprocess.run([sys.executable, "-c", burn], check=True)) >= 0.29


def test_the_tree_counts_a_child_that_lives():
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = tree_seconds()
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        spent = tree_seconds() - before
        child.communicate(b"\n")
    assert spent >= 0.29


def test_a_cpu_is_measured_by_its_cpu_time():
    assert clock_for(torch.device("cpu")) is cpu_seconds


def test_the_file_holds_median_range_machine_versions_and_commit(tmp_path, capsys):
    result = Result(
        "Question", "ms", {"a": [1.0, 4.0, 2.0]}, {"a / b": [0.9, 1.1, 1.2]}, setting={"json": "x", "size": 8}
    )
    publish(result, tmp_path / "new" / "file.json")
    found = json.loads((tmp_path / "new" / "file.json").read_text())
    assert found["rows"] == {"a": {"median": 2.0, "min": 1.0, "max": 4.0}}
    assert found["paired"]["a / b"] == {"median": 1.1, "min": 0.9, "max": 1.2, "rounds": 3, "rounds_above_1": 2}
    assert found["setting"] == {"size": 8}
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert set(found) >= {"commit", "date"}
    assert "| a / b | 1.100 | 0.900 to 1.200 | 2 of 3 |" in capsys.readouterr().out


def test_no_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        create_parser("").parse_args(["--rounds", "0"])
    assert "0 is not positive" in capsys.readouterr().err
