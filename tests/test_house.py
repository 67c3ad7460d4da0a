"""The plan of the house holds: tests mirror the source, functions are short, chains of imports too."""

import ast
import re
import statistics
from pathlib import Path

from tests.test_imports import PACKAGE, imports

ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_module_has_a_test_of_its_name_or_a_line_that_says_where_it_is_tested():
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Where each module is tested")[2]
    rows = re.findall(r"^\| `([\w./]+)` \| (.*) \|$", table, re.MULTILINE)
    tests = [test for _, cells in rows for test in re.findall(r"`(tests/[\w/.]+)`", cells)]
    assert all((ROOT / test).is_file() for test in tests), tests
    relative = [path.relative_to(PACKAGE) for path in MODULES]
    untested = {
        str(path.with_suffix(""))
        for path in relative
        if not (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()
    }
    assert untested == {module for module, _ in rows}


def test_functions_are_short():
    """The figures that the project keeps to: half of them 7 lines, nine of ten 16, none above 36."""
    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert statistics.median(lengths) <= 7
    assert lengths[int(0.9 * len(lengths))] <= 16
    assert lengths[-1] <= 36


def test_the_longest_chain_of_imports_is_short():
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    chains: dict[str, tuple[str, ...]] = {}

    def longest(name: str) -> tuple[str, ...]:
        if name not in chains:
            found = {target if target in files else target.rpartition(".")[0] for target in imports(files[name])}
            below = [longest(target) for target in (found & set(files)) - {"backbones", name}]
            chains[name] = (name, *max(below, key=len, default=()))
        return chains[name]

    chain = max(map(longest, files), key=len)
    assert len(chain) <= 18, " > ".join(chain)


def test_commands_holds_commands_only():
    from backbones.__main__ import COMMANDS  # noqa: PLC0415

    parts = {path.stem for path in (PACKAGE / "commands").iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert parts == set(COMMANDS)


READERS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Functions that read files, with the argument that keeps a file from running code."""


def test_no_file_that_is_read_can_run_code():
    """Ruff bans pickle, eval and shells; it does not look at these arguments."""
    calls = [
        (path.name, ast.unparse(node.func), {argument.arg: argument.value for argument in node.keywords})
        for path in [*ROOT.glob("*.py"), *PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS
    ]
    assert {function for _, function, _ in calls} == set(READERS)
    for file, function, arguments in calls:
        name, safe = READERS[function]
        assert isinstance(given := arguments.get(name), ast.Constant), (file, function)
        assert given.value is safe, (file, function)
