import platform
import subprocess

from benchmarks.machine import ROOT, commit, describe_versions, output_of


def test_a_package_that_is_missing_is_said_to_be(monkeypatch):
    monkeypatch.setattr("benchmarks.machine.PACKAGES", ("no-such-package",))
    assert describe_versions() == {"python": platform.python_version(), "no-such-package": "not installed"}


def test_the_commit_is_that_of_the_sources():
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.startswith(commit().removesuffix("-dirty"))


def test_a_program_that_is_missing_or_fails_leaves_its_figure_unknown():
    assert output_of("no-such-program") == output_of("false") == "unknown"
