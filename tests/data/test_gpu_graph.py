"""The graphs for a GPU, which a machine without one cannot run, are those that were reviewed."""

import pytest

dali = pytest.importorskip("nvidia.dali")


def test_the_graphs_for_a_gpu_are_those_of_the_snapshot():
    from tests.data.gpu_graph import SNAPSHOT, describe_graphs  # noqa: PLC0415  (it needs DALI)

    recorded = SNAPSHOT.read_text()
    if not recorded.startswith(f"DALI {dali.__version__}\n"):
        pytest.skip(f"recorded with {recorded.splitlines()[0]}; other versions print other arguments")
    message = "read the difference; if it is meant: python -m tests.data.gpu_graph"
    assert describe_graphs().splitlines() == recorded.splitlines(), message
