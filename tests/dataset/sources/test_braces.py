"""Lists in braces mean what bash means by them."""

import subprocess

import pytest

from backbones.dataset.sources.braces import expand
from backbones.errors import UserError


@pytest.mark.parametrize(
    "text", ["plain.tar", "train-{000..012}.tar", "{a,b}-{8..11}.tar", "x{1,2,30}", "{00..1}{x,y}/z{7..7}", "a{,b}"]
)
def test_it_agrees_with_bash(text: str) -> None:
    theirs = subprocess.run(["bash", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True)
    assert expand(text) == theirs.stdout.splitlines()


@pytest.mark.parametrize(
    "text", ["a{0..1", "a0..1}", "{a{0..1}}", "{abc}", "{3..1}", "{0..9999999}", "{0..9999}{0..9999}"]
)
def test_what_cannot_be_meant_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(text)
    assert text in str(caught.value)
