"""A frozen dataclass from the command line and a YAML file, strictly: command line > file > default.

jsonargparse does the parsing and the types. Added here: options in timm's spelling (``--batch-size``,
``--smoothing``, ``--no-channels-last``), the nearest name for an unknown one, and the strict YAML reader.
"""

import dataclasses
import re
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_loader, set_parsing_settings

from backbones import strict_yaml
from backbones.errors import UserError, did_you_mean

T = TypeVar("T")
Leaves = dict[str, Any]  # dotted option -> its type
_SHORT = {"-b": "--batch-size", "-j": "--workers", "-o": "--output", "-c": "--config"}
_NOT_FIELDS = ("config", "help", "print_config")
_NOUNS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "null"}


def parse(options: type[T], argv: Sequence[str], *, description: str = "", config: Path | None = None) -> T:
    """Return the dataclass ``options`` filled from ``argv`` over the YAML file over the defaults.

    ``config`` is a file that is read before the ones that ``argv`` names with ``--config``. An unknown option,
    a duplicate key, a wrong type or an unknown choice raises ``UserError`` that names it and the nearest known.
    """
    leaves = dict(_leaves(options))
    words = [*(["--config", str(config)] if config else []), *_files_first(_words(argv, leaves))]
    for file in _config_files(words):
        _check_file(Path(file), options)
    parser = _parser(options, description)
    try:
        values = parser.instantiate(parser.parse_args(words))
    except ArgumentError as error:
        raise UserError(_explained(str(error), leaves)) from None
    return options(**{f.name: _at_home(values[f.name]) for f in dataclasses.fields(options)})  # type: ignore[arg-type]


class _Help(DefaultHelpFormatter):
    """Shows options with dashes, as they are typed."""

    def _format_action_invocation(self, action: Any) -> str:
        text = super()._format_action_invocation(action)
        return re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)


def _parser(options: type, description: str) -> ArgumentParser:
    set_loader("strict_yaml", strict_yaml.load, exceptions=(yaml.YAMLError,))
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        allow_abbrev=False,
        parser_mode="strict_yaml",
        exit_on_error=False,
        description=description,
        formatter_class=_Help,
        usage="%(prog)s [options]",
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file that holds any of the options below.")
    parser.add_class_arguments(options)
    return parser


def _leaves(options: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, type) of every field that is not itself a group."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + field.name, kind


def _words(argv: Sequence[str], leaves: Leaves) -> list[str]:
    """Spell every option out: ``--no-x`` as ``--x false``, a bare flag as ``--x true``, a leaf with its group."""
    words: list[str] = []
    for i, arg in enumerate(argv):
        name, equals, value = arg.partition("=")
        name = _SHORT.get(name, name)
        if not name.startswith("--"):
            words.append(arg)
            continue
        option, negated = _full_name(name[2:].replace("-", "_"), leaves)
        if negated and equals:
            raise UserError(f"{arg}: {name} takes no value; --{option} takes true or false.")
        words.append(f"--{option}{equals}{value}")
        following = argv[i + 1] if i + 1 < len(argv) else "-"
        if not equals and leaves.get(option) is bool and (negated or following.startswith("-")):
            words.append("false" if negated else "true")
    return words


def _full_name(name: str, leaves: Leaves) -> tuple[str, bool]:
    """Return (dotted option, whether it was negated); a leaf that only one group has needs no group."""
    if name in leaves or name.partition("+")[0] in _NOT_FIELDS:
        return name, False
    if name.startswith("no_") and leaves.get(positive := _full_name(name[3:], leaves)[0]) is bool:
        return positive, True
    owners = [leaf for leaf in leaves if leaf.endswith(f".{name}")]
    return (owners[0] if len(owners) == 1 else name), False


def _files_first(words: list[str]) -> list[str]:
    """Put the config files before everything else, so that the command line wins wherever they stand."""
    files: list[str] = []
    others: list[str] = []
    for before, word in pairwise(["", *words]):
        is_file = before == "--config" or word.partition("=")[0] == "--config"
        (files if is_file else others).append(word)
    return [*files, *others]


def _at_home(value: Any) -> Any:
    """Return a path below ~ in full: the shell leaves it in YAML and behind an equals sign."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _config_files(words: list[str]) -> Iterator[str]:
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name == "--config":
            yield value if equals else following


def _check_file(file: Path, options: type) -> None:
    """Refuse a config file that is missing, not a mapping, repeats a key or holds one we do not know."""
    if not file.is_file():
        raise UserError(f"--config {file}: there is no such file.")
    try:
        values = strict_yaml.load(file.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise UserError(f"{where}: {getattr(error, 'problem', error)}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {file} is not a text file.") from None
    _check_keys(values, options, str(file))


def _check_keys(values: Any, options: type, where: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected `option: value` lines, found {values!r}.")
    hints = get_type_hints(options)
    for key, value in values.items():
        if key not in hints:
            raise UserError(
                f"{where}: unknown option {key!r}.{_home(str(key), options) or did_you_mean(str(key), hints)}"
            )
        if dataclasses.is_dataclass(hints[key]):
            _check_keys(value, hints[key], f"{where}: {key}")
        elif isinstance(value, str) and not _takes_text(hints[key]):
            raise UserError(f"{where}: {key}={value} is not valid: it must be {_noun(hints[key])}.")


def _home(key: str, options: type) -> str:
    """Say which group an option belongs to, where it stands outside of it."""
    homes = [leaf.rpartition(".")[0] for leaf, _ in _leaves(options) if leaf.endswith(f".{key}")]
    return f" It belongs to the group {homes[0]}: write `{homes[0]}:` and, indented, `{key}:`." if homes else ""


def _explained(message: str, leaves: Leaves) -> str:
    """Put jsonargparse's message into one line that names the option and what it takes."""
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        return f"unknown option {match[1].replace('_', '-')}.{_nearest_option(match[1], leaves)}"
    key = re.search(r'Parser key "([\w.]+)"', message)
    got = re.findall(r"(?:Got|Given) value: (.*)", message)
    if key and got and key[1] in leaves:
        value, kind = got[-1], leaves[key[1]]
        literals = [part for part in _alternatives(kind) if get_origin(part) is Literal]
        choices = [str(choice) for part in literals for choice in get_args(part)]
        return f"{key[1]}={value} is not valid: it must be {_noun(kind)}.{did_you_mean(value, choices)}"
    return " ".join(message.split())


def _nearest_option(word: str, leaves: Leaves) -> str:
    names = {leaf.rpartition(".")[2]: leaf for leaf in leaves} | {leaf: leaf for leaf in leaves}
    text = did_you_mean(word.lstrip("-").partition("=")[0], names)
    return re.sub(r"[\w.]+(?=[,?])", lambda match: "--" + match[0].replace("_", "-"), text)


def _takes_text(kind: Any) -> bool:
    return any(part is str or get_origin(part) is Literal for part in _alternatives(kind))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the parts of a union; both spellings, ``int | None`` and ``Optional``, which Literals turn into."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _noun(kind: Any) -> str:
    """Say in words what a type takes: ``Literal["a", "b"]`` is "a or b", ``int | None`` "an integer or null"."""
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if len(_alternatives(kind)) > 1:
        return " or ".join(_noun(part) for part in _alternatives(kind))
    if get_origin(kind) is tuple:
        example = "1" if int in get_args(kind) else "0.5"
        return f"{len(get_args(kind))} numbers, as [{', '.join([example] * len(get_args(kind)))}]"
    return _NOUNS.get(kind, "a mapping, as {name: value}")
