import json

from benchmarks.tables import RESULTS, page_of, table, to_markdown


def test_a_table_is_markdown():
    assert table(["a", "b"], [[1.23456, "x"]]) == "| a | b |\n| --- | --- |\n| 1.235 | x |"


def test_ratios_come_before_costs_and_counts_last():
    content = {
        "title": "T",
        "unit": "ms",
        "paired": {"ratio": {"median": 1, "min": 1, "max": 1}},
        "rows": {"cost": {"median": 2, "min": 2, "max": 2}},
        "tables": {"Counts": [{"network": "n", "launches": 7}]},
    }
    text = to_markdown(content)
    assert text.index("| ratio |") < text.index("| cost |") < text.index("| n | 7 |")


def test_a_result_from_before_the_harness_is_shown_with_its_costs(tmp_path):
    old = {"cpu_milliseconds_per_image": {"ours": {"median": 1.5, "min": 1.0, "max": 2.0}}, "date": "2026-11-22"}
    (tmp_path / "loader-cpu.json").write_text(json.dumps(old))
    assert "| ours | 1.5 | 1 to 2 |" in page_of(tmp_path)


def test_the_committed_page_is_made_from_the_committed_results():
    assert (RESULTS / "README.md").read_text() == page_of(RESULTS)


def test_a_result_with_a_page_of_its_own_is_linked(tmp_path):
    (tmp_path / "gpu.json").write_text("{}")
    (tmp_path / "gpu.md").write_text("# Proof")
    assert "* [gpu](gpu.md)" in page_of(tmp_path)


def test_a_result_that_is_missing_is_listed_with_its_command(tmp_path):
    assert "| gpu | `make prove-gpu` |" in page_of(tmp_path)
