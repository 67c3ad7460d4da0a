"""The one-way rule of the house, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "backbones"
FIRST = {"errors", "files", "terminal"}
"""Parts that every part but the networks may use."""
MAY_IMPORT = {
    "errors": set(),
    "choices": set(),
    "rules": {"errors", "choices"},
    "strict_yaml": set(),
    "files": {"errors"},
    "terminal": {"errors"},
    "foreign_options": set(),
    "contradictions": set(),
    "counting": set(),
    "command_line": {"errors", "strict_yaml", "foreign_options", "contradictions"},
    "recipe": {"errors"},
    "layers": {"errors", "choices", "rules"},
    "models": {"errors", "choices", "rules", "layers"},
    "darknet": {"errors", "choices", "files", "layers", "models"},
    "model_names": {"errors", "models"},
    "timm_import": {"models"},
    "__init__": {"errors", "models", "model_names", "timm_import"},
    "dataset": FIRST | {"recipe"},
    "data": FIRST | {"recipe", "dataset"},
    "training": FIRST | {"recipe"},
    "assembly": FIRST
    | {"recipe", "layers", "models", "darknet", "dataset", "data", "training", "__init__"}
    | {"choices", "model_names"},
}
MAY_IMPORT["commands"] = MAY_IMPORT["assembly"] | {"assembly", "command_line", "counting"}
MAY_IMPORT["__main__"] = {"errors", "terminal", "commands"}
FOREIGN = {
    "layers": {"torch", "timm", "triton"},
    "models": {"torch", "timm", "numpy"},
    "darknet": {"torch", "timm", "numpy"},
    "counting": {"torch"},
    "recipe": set(),
    "errors": set(),
}
ONLY_IMPORTERS = {
    "triton": {
        f"layers/kernels/{name}.py" for name in ("elementwise", "launch", "max_pool", "merge", "shares", "statistics")
    },
    "nvidia": {"data/pipeline.py", "data/augment/auto_augment_dali.py"},
    "wandb": {"training/wandb_sender.py"},
    "jsonargparse": {"command_line.py"},
}


def imports(file: Path) -> set[str]:
    """Full names of every module that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


def parts_imported(file: Path) -> set[str]:
    own = {name.split(".")[1] for name in imports(file) if name.startswith("backbones.")}
    return {part if part in MAY_IMPORT else "__init__" for part in own}


def test_every_part_of_the_package_has_its_rule():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.joinpath("__init__.py").exists()}
    assert parts == set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_lies_below_it(part):
    for file in files_of(part):
        assert parts_imported(file) - {part} <= MAY_IMPORT[part], file


@pytest.mark.parametrize("part", FOREIGN)
def test_a_low_part_needs_few_libraries(part):
    for file in files_of(part):
        foreign = {name.split(".")[0] for name in imports(file)} - sys.stdlib_module_names - {"backbones"}
        assert foreign <= FOREIGN[part], file


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_a_heavy_library_has_few_importers(library):
    importers = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for name in imports(file))
    }
    assert importers == ONLY_IMPORTERS[library]


def test_no_module_imports_itself_through_others():
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}

    def targets(name: str) -> set[str]:
        found = {target if target in modules else target.rpartition(".")[0] for target in imports(modules[name])}
        return (found & set(modules)) - {"backbones"}

    free_of_rings: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import ring: {' -> '.join((*path, name))}"
        if name not in free_of_rings:
            for target in targets(name):
                visit(target, (*path, name))
            free_of_rings.add(name)

    for name in modules:
        visit(name, ())


def test_importing_the_networks_loads_no_training_library():
    """What `import backbones` alone loads is in test_timm_import.py."""
    code = (
        "import sys, backbones.layers, backbones.models.registry, backbones.darknet.network, timm.utils;"
        "heavy = {'nvidia.dali', 'accelerate', 'wandb', 'jsonargparse'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_trainer_can_be_imported_without_dali():
    code = (
        "import sys; sys.modules['nvidia.dali'] = None;"
        "import train_imagenet, eval, backbones.assembly.training, backbones.assembly.evaluation.evaluation;"
        "import backbones.data.loader, backbones.data.reference, backbones.data.mixing"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_file_is_a_drawer():
    assert not {path.stem for path in PACKAGE.rglob("*.py")} & {"utils", "util", "misc", "common", "helpers"}
