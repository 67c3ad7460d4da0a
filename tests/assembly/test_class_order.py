"""Tests of the order of outputs: recognized by name, told by the user, or asked for, and never guessed."""

import json
from pathlib import Path

import pytest
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from backbones.assembly.checkpoint import Restored
from backbones.assembly.class_order import name_outputs, published_orders
from backbones.errors import UserError
from backbones.recipe import Preprocess

SYNSETS = tuple(ImageNetInfo("imagenet-1k").label_names())
NUMBERS = tuple(map(str, range(1000)))


def restored(
    count: int, *, classes: tuple[str, ...] | None = None, file: str = "w.safetensors", **attributes: object
) -> Restored:
    network = nn.Identity()
    for name, value in {"num_classes": count, **attributes}.items():
        setattr(network, name, value)
    return Restored(
        model=network,
        name="net",
        file=Path(file),
        img_size=32,
        preprocess=Preprocess(),
        precision="auto",
        classes=classes,
    )


def names(weights: Restored, folders, order=None) -> tuple[str, ...]:
    return name_outputs(weights, tuple(sorted(folders)), order=order, where="/data")


def refusal(weights: Restored, folders, order=None) -> str:
    with pytest.raises(UserError) as caught:
        names(weights, folders, order)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "class_"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("count", [11, 1000])
def test_numbers_of_several_lengths_are_asked_for_with_both_orders(prefix: str, first: int, count: int) -> None:
    message = refusal(restored(count), [f"{prefix}{k}" for k in range(first, first + count)])
    numeric = ", ".join(f"{prefix}{k}" for k in range(first, first + 4))
    assert f"numeric  {numeric}, ..." in message
    assert f"text     {prefix}{first}, " in message
    assert f"{prefix}10" in message.splitlines()[2]
    assert "--class-order numeric" in message
    assert "--class-order text" in message


def test_the_answer_decides() -> None:
    assert names(restored(1000), NUMBERS, "numeric") == NUMBERS
    assert names(restored(1000), NUMBERS, "text") == tuple(sorted(NUMBERS))


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_padded_numbers_have_one_order_and_no_question(count: int) -> None:
    padded = tuple(f"{k:0{len(str(count - 1))}d}" for k in range(count))
    assert names(restored(count), padded) == padded


def test_the_thousand_synsets_are_recognized() -> None:
    assert names(restored(1000), SYNSETS) == SYNSETS


def test_a_published_order_that_is_not_sorted_is_followed() -> None:
    """Microsoft's 22k classes begin with the 1000 of ImageNet-1k."""
    published = tuple(ImageNetInfo("imagenet-22k-ms").label_names())
    assert names(restored(len(published)), published) == published
    assert published[:1000] == SYNSETS
    assert published != tuple(sorted(published))


@pytest.mark.parametrize("strange", ["n99999999", "tench"])
def test_other_classes_of_a_published_number_are_asked_for(strange: str) -> None:
    folders = (*SYNSETS[1:], strange)
    message = refusal(restored(1000), folders)
    assert f"other classes: {strange}" in message
    assert "n01440764, n01443537" in message
    assert names(restored(1000), folders, "text") == tuple(sorted(folders))


def test_a_thousand_words_are_not_in_the_order_of_the_synsets() -> None:
    words = ImageNetInfo("imagenet-1k").label_descriptions()
    assert "published in the order of n01440764" in refusal(
        restored(1000), {f"{k} {word}" for k, word in enumerate(words)}
    )


def test_a_few_classes_of_their_own_are_sorted_with_a_note(capsys) -> None:
    assert names(restored(3), ["cow", "ant", "bee"]) == ("ant", "bee", "cow")
    shown = capsys.readouterr().out
    assert "w.safetensors does not name its 3 classes" in shown
    assert "ImageFolder: ant, bee, cow" in shown


def test_names_in_the_configuration_of_timm_are_used() -> None:
    weights = restored(3, pretrained_cfg={"label_names": ["cow", "ant", "bee"]})
    assert names(weights, ["ant", "bee", "cow"]) == ("cow", "ant", "bee")
    assert "other classes: emu" in refusal(weights, ["ant", "bee", "emu"])


def test_names_in_a_file_beside_the_weights_are_used(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["b", "a"]}))
    assert published_orders(nn.Identity(), tmp_path / "w.safetensors") == []
    assert names(restored(2, file=str(tmp_path / "w.safetensors")), ["a", "b"]) == ("b", "a")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"label_names": 3}', '{"label_names": [1, 2]}', '{"label_names": ["a"]}']
)
def test_a_file_beside_the_weights_that_names_nothing_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert names(restored(2, file=str(tmp_path / "w.safetensors")), ["a", "b"]) == ("a", "b")


def test_darknets_number_of_classes_tells_nothing_about_timms_order() -> None:
    network = restored(1000).model
    assert published_orders(network, Path("x.weights")) == []
    assert published_orders(network, Path("x.pth")) == [SYNSETS]


def test_known_classes_keep_the_order_of_the_outputs() -> None:
    assert names(restored(2, classes=("b", "a")), ["a", "b"]) == ("b", "a")


def test_known_classes_are_found_in_folders_of_numbers_only_when_told(capsys) -> None:
    weights = restored(1000, classes=SYNSETS)
    assert "--class-order numeric where folder k is class k of n01440764" in refusal(weights, NUMBERS)
    assert names(weights, NUMBERS, "numeric") == NUMBERS
    assert "has other names for its 1000 classes" in capsys.readouterr().out


def test_two_unicode_forms_of_a_known_class_are_spelled() -> None:
    message = refusal(restored(2, classes=("ant", "caf\u00e9")), ["ant", "cafe\u0301"])
    assert "'cafe\\u0301' (NFD)" in message
    assert "'caf\\xe9' (NFC)" in message


@pytest.mark.parametrize(
    ("weights", "order", "reason"),
    [
        (restored(2, classes=("1", "2")), "numeric", "classes of known names"),
        (restored(2, classes=("1", "2")), "text", "classes of known names"),
        (restored(2), "darknet", r"for darknet's \.weights"),
        (restored(2), "sorted", r"for darknet's \.weights"),
        (restored(3), None, "net has 3 outputs, /data has 2 classes"),
    ],
)
def test_an_order_for_other_weights_is_refused(weights: Restored, order, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        names(weights, ["1", "2"], order)


@pytest.mark.parametrize("folders", [["1", "01"], ["ant", "bee"]])
def test_names_without_numbers_have_no_order_by_numbers(folders: list[str]) -> None:
    assert "not different numbers" in refusal(restored(2), folders, "numeric")
