import json

import pytest
import torch

from benchmarks import prove_gpu
from benchmarks.gpu.plan import Left, Part, Plan, row, run_part
from benchmarks.prove_gpu import PARTS, clean, main, page_of

CPU = Plan("cpu", quick=True, batch=2, size=32)


def part(run, **options):
    return Part("some", run, 5, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err == "prove-gpu needs a GPU, and torch sees none here: nothing was measured.\n"


def test_figures_of_a_cpu_do_not_go_among_the_results(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--quick"])
    assert "--json is missing" in capsys.readouterr().err


def test_a_part_that_fails_keeps_its_rows_and_hides_no_other(tmp_path, monkeypatch):
    def fails(_plan):
        yield row("first", 1.0)
        raise ValueError("broken | part")

    monkeypatch.setattr(prove_gpu, "PARTS", {"a": Part("a", fails, 5), "b": Part("b", lambda _: [row("b", 2.0)], 5)})
    assert main(["--device", "cpu", "--quick", "--json", str(tmp_path / "gpu.json")]) == 1
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [found["status"] for found in parts.values()] == ["failed", "done"]
    assert parts["a"]["rows"][0]["what"] == "first"
    assert "| a | failed |" in (tmp_path / "gpu.md").read_text()
    assert "ValueError: broken / part" in (tmp_path / "gpu.md").read_text()


def test_one_part_alone_leaves_the_others_of_the_file(tmp_path, monkeypatch):
    parts = {name: Part(name, lambda _: [row("x", 1.0)], 5) for name in "ab"}
    monkeypatch.setattr(prove_gpu, "PARTS", parts)
    words = ["--device", "cpu", "--quick", "--json", str(tmp_path / "gpu.json")]
    main(words)
    parts["b"] = Part("b", lambda _: [row("x", 2.0)], 5)
    main([*words, "--only", "b"])
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [found[name]["rows"][0]["value"] for name in "ab"] == ["1", "2"]


def test_a_part_that_takes_too_long_is_ended():
    def endless(_plan):
        while True:
            yield from ()

    outcome = run_part(Part("endless", endless, 1), CPU)
    assert (outcome.status, outcome.reason) == ("failed", "TimeoutError: the part took more than its 1 s")


def test_a_part_for_which_no_time_is_left_does_not_start():
    assert run_part(part(pytest.fail), CPU, seconds_left=1).reason == "the time of all parts was over"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Left("no engine"), "no engine"), (ModuleNotFoundError(name="dali"), "the package dali is not installed")],
)
def test_a_part_that_cannot_run_here_is_left_out_with_the_reason(error, reason):
    def leaves(_plan):
        raise error

    outcome = run_part(part(leaves), CPU)
    assert (outcome.status, outcome.reason) == ("left out", reason)


def test_a_part_for_a_gpu_is_left_out_on_a_cpu():
    assert run_part(part(pytest.fail, needs_gpu=True), CPU).reason == "it needs a GPU"


@pytest.mark.parametrize("name", ["ceilings", "grouped", "eager", "trainer", "average", "nan"])
def test_a_part_runs_in_its_quick_form_on_a_cpu(name):
    outcome = run_part(PARTS[name], CPU)
    assert (outcome.status, outcome.reason) == ("done", "")
    assert outcome.rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inference", "decoding", "decoded", "resume", "compiled"])
def test_a_longer_part_runs_in_its_quick_form_on_a_cpu(name):
    outcome = run_part(PARTS[name], CPU)
    assert (outcome.status, outcome.reason) == ("done", "")


def test_the_times_of_all_parts_but_the_last_leave_it_a_minute():
    seconds = [part.seconds for part in PARTS.values()]
    assert sum(seconds[:-1]) <= 11 * 60


def test_a_cell_has_no_line_break_and_no_bar():
    assert clean("a | b\n  c") == "a / b c"
    assert "\n\n| part | status" in page_of({"parts": {}, "machine": {}})
