"""What happens when timm is imported, each time in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from backbones.timm_import import WANDB, DeferredModule, deferring_wandb

ROOT = Path(__file__).parents[1]


def run(*lines: str) -> None:
    code = "; ".join(["import sys", *lines])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_neither_torch_nor_timm():
    run(
        "import backbones, backbones.models, backbones.darknet",
        "backbones.list_models()",
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)",
    )


def test_timm_that_is_imported_later_knows_the_backbones_and_leaves_wandb_alone():
    """The changed modules keep their own loaders."""
    run(
        "import backbones, timm.utils.summary as summary, timm.models as models",
        "assert all(map(models.is_model, backbones.list_models()))",
        "assert 'wandb' not in sys.modules",
        "loaders = [m.__spec__.loader for m in (summary, models)] + [m.__loader__ for m in (summary, models)]",
        "assert {type(loader).__name__ for loader in loaders} == {'SourceFileLoader'}",
    )


def test_timm_that_is_imported_before_knows_the_backbones():
    run("import timm, backbones", "assert all(map(timm.is_model, backbones.list_models()))")


def test_whoever_imports_wandb_during_the_block_gets_the_real_one_at_its_first_use(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("log = 'the real one'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, WANDB, raising=False)
    with deferring_wandb():
        import wandb as stand_in  # noqa: PLC0415
    assert WANDB not in sys.modules
    assert stand_in.log == "the real one"
    assert sys.modules[WANDB].log == "the real one"
    assert not isinstance(sys.modules.pop(WANDB), DeferredModule)


def test_a_first_use_during_the_block_gets_the_real_one(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("log = 'the real one'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, WANDB, raising=False)
    with deferring_wandb():
        import wandb as stand_in  # noqa: PLC0415

        assert stand_in.log == "the real one"
    assert not isinstance(sys.modules.pop(WANDB), DeferredModule)


@pytest.mark.parametrize("module", [None, sys])
def test_wandb_that_is_imported_or_blocked_stays_so(module, monkeypatch):
    monkeypatch.setitem(sys.modules, WANDB, module)
    with deferring_wandb():
        assert sys.modules[WANDB] is module
    assert sys.modules[WANDB] is module


def test_where_wandb_is_not_installed_its_import_fails_as_before(monkeypatch):
    monkeypatch.delitem(sys.modules, WANDB, raising=False)
    monkeypatch.setattr("backbones.timm_import.find_spec", lambda _: None)
    with deferring_wandb():
        assert WANDB not in sys.modules
