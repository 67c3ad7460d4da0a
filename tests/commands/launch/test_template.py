"""Templates are filled completely, also from an installed package, and YAML keeps scripts readable."""

import tomllib
from pathlib import Path

import pytest
import yaml

from backbones.commands.launch.template import fill, yaml_text

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "backbones" / "commands" / "launch"


def test_a_place_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        fill("skypilot.sh", {"run": "a"})


def test_every_template_is_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["package-data"]["backbones"]
    templates = {path for path in FOLDER.iterdir() if path.suffix in (".sbatch", ".sh")}
    assert {str(path.relative_to(ROOT / "backbones")) for path in templates} <= set(listed)
    assert len(templates) == 2


def test_a_script_is_written_as_a_block_and_keys_keep_their_order():
    content = {"run": "echo 1\necho 2\n", "name": "on", "count": 1}
    text = yaml_text(content, "about\nit")
    assert text == "# about\n# it\nrun: |\n  echo 1\n  echo 2\nname: 'on'\ncount: 1\n"
    assert yaml.safe_load(text) == content
