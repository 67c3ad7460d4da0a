"""The list of code that only runs on a GPU, in benchmarks/README.md, is complete: each place says what checks it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_imports import PACKAGE

ROOT = PACKAGE.parent
FILES = sorted([*ROOT.glob("*.py"), *PACKAGE.rglob("*.py")])
GPU_WORDS = {"cuda", "mixed"}
"""Device types of torch and DALI that need a GPU."""


def find_places(source: str) -> set[str]:
    """Return the functions and classes of a file that ask for a GPU or use one."""
    return set(_find(ast.parse(source), ""))


def _find(node: ast.AST, inside: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        is_named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        name = f"{inside}.{child.name}".lstrip(".") if is_named else inside
        if asks_for_gpu(child):
            yield name
        yield from _find(child, name)


def asks_for_gpu(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "is_cuda" or ast.unparse(node) == "torch.cuda"
    if isinstance(node, ast.Compare):
        return any(isinstance(each, ast.Constant) and each.value in GPU_WORDS for each in ast.walk(node))
    return False


def test_every_kind_of_question_for_a_gpu_is_found():
    source = """
def a(x):
    return x.is_cuda
class B:
    def c(self):
        torch.cuda.synchronize()
    def d(self, device):
        return "cuda" == device.type
    def e(self, device):
        return device.type in ("cuda", "xpu")
    def f(self, device):
        return device.type == "cpu"
"""
    assert find_places(source) == {"a", "B.c", "B.d", "B.e"}


def test_every_place_that_asks_for_a_gpu_is_listed_with_what_checks_it():
    places = {f"{file.relative_to(ROOT)}:{name}" for file in FILES for name in find_places(file.read_text())}
    table = (ROOT / "benchmarks" / "README.md").read_text().partition("## Code that only runs on a GPU")[2]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == places


def test_the_tests_that_the_list_names_exist():
    table = (ROOT / "benchmarks" / "README.md").read_text().partition("## Code that only runs on a GPU")[2]
    names = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", table)
    assert names
    missing = [name for name in names if not _exists(ROOT / name[0], name[1])]
    assert not missing


def _exists(file: Path, test: str) -> bool:
    return file.is_file() and (not test or f"def {test}(" in file.read_text())
