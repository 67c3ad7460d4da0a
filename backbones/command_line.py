"""A frozen dataclass from the command line and YAML files, strictly: command line > file > default.

jsonargparse parses values and checks types. This module adds options as timm spells them (``--batch-size``,
``--smoothing``, ``--no-channels-last``), positional words, the nearest name for an unknown option, options of other
trainers, the strict YAML reader, and contradictions between layers.
"""

import dataclasses
import json
import re
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_loader, set_parsing_settings

from backbones import strict_yaml
from backbones.contradictions import CONTRADICTIONS
from backbones.errors import UserError, did_you_mean
from backbones.foreign_options import FLAG_HINTS, FOREIGN

T = TypeVar("T")
Kinds = dict[str, Any]
"""Dotted option -> its type."""

_SHORT = {"-b": "--batch-size", "-j": "--workers", "-o": "--output", "-c": "--config", "-h": "--help"}
_FLAGS = ("help", "print_config")
"""Options of the parser itself that take no value."""
_TRUTH_VALUES = ("true", "false", "yes", "no")
"""Words that a flag takes as its value."""
_NOUNS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "null"}


class _Word(NamedTuple):
    """One option of the command line with its value."""

    option: str
    """Dotted name; empty for a word without an option."""
    value: str
    before: str = ""
    """Option that the word follows."""


def parse(
    options: type[T],
    argv: Sequence[str],
    *,
    prog: str | None = None,
    description: str = "",
    config: Path | None = None,
) -> T:
    """Return the dataclass ``options`` filled from ``argv`` over YAML files over the defaults.

    A field with ``metadata={"positional": "SRC"}`` may be given as a word without its option; with ``"repeated": True``
    it is a tuple of all further ones. What a file says gives way where a later file or the command line contradicts it
    (`CONTRADICTIONS`); ``options`` itself refuses other contradictions.

    Args:
        options: frozen dataclass; its docstrings are the help.
        argv: words of the command line.
        prog: command that the usage shows; None: the script.
        description: text at the head of ``--help``.
        config: file that is read before those that ``argv`` names with ``--config``.

    Raises:
        UserError: an unknown option, a duplicate key, a wrong type, an unknown choice or a missing option. The message
            names it and the nearest name.
    """
    kinds = dict(_list_options(options))
    usage = _write_usage(options, prog or f"python {Path(sys.argv[0]).name}")
    given, repeated = _split_repeated(_assign_words(list(_read_words(argv, kinds)), options, usage), options)
    words = _merge(given, config, options, usage)
    parser = _create_parser(options, description, usage)
    try:
        values = parser.instantiate(parser.parse_args(words))
    except ArgumentError as error:
        raise UserError(_explain(str(error), kinds)) from None
    read = {f.name: _expand_home(values[f.name]) for f in dataclasses.fields(options)}  # type: ignore[arg-type]
    return options(**read | repeated)


def find_value(options: type, argv: Sequence[str], name: str) -> str | None:
    """Return the value of one option of the command line, as it was typed; None where it is not given."""
    values = [word.value for word in _read_words(argv, dict(_list_options(options))) if word.option == name]
    return values[-1] if values else None


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help with options as they are typed: with dashes, and flags with their opposite."""

    def _format_action_invocation(self, action: Any) -> str:
        text = super()._format_action_invocation(action)
        text = re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), text)
        return re.sub(r"--([\w.-]+) \{true,false\}", r"--\1, --no-\1", text)

    def _expand_help(self, action: Any) -> str:
        """Leave out types that are visible in the choices."""
        return re.sub(r"type: (Literal\[[^]]*\]|bool)( \| null)?, ", "", super()._expand_help(action))


def _create_parser(options: type, description: str, usage: str) -> ArgumentParser:
    set_loader("strict_yaml", strict_yaml.load, exceptions=(yaml.YAMLError,))
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        allow_abbrev=False,
        parser_mode="strict_yaml",
        exit_on_error=False,
        description=description.replace("``", "`").strip(),
        formatter_class=_Help,
        usage=usage.removeprefix("usage: ").replace("%", "%%"),
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(options)
    metavars = {field.name: field.metadata.get("positional") for field in _fields(options)}
    for action in parser._actions:  # argparse lists its options nowhere else
        action.metavar = metavars.get(action.dest) or action.metavar
    return parser


def _write_usage(options: type, prog: str) -> str:
    """Return "usage: PROG SRC --out OUT [options]"."""
    words = []
    for field in _fields(options):
        metavar, is_required = field.metadata.get("positional"), _is_required(field)
        if metavar:
            is_required = is_required or _is_repeated(field)
            words.append(metavar if is_required else f"[{metavar}]")
        elif is_required:
            words.append(f"{_spell(field.name)} {field.name.upper()}")
    return " ".join(["usage:", prog, *words, "[options]"])


def _fields(options: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(options)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_repeated(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("repeated", False)


def _spell(option: str) -> str:
    return "--" + option.replace("_", "-")


def _list_options(options: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, type) of every field that is not itself a group."""
    hints = get_type_hints(options)
    for field in _fields(options):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _list_options(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + field.name, kind


def _read_words(argv: Sequence[str], kinds: Kinds) -> Iterator[_Word]:
    """Yield each option with its value, and each word without an option."""
    rest = deque(argv)
    before = ""
    while rest:
        word = rest.popleft()
        if _is_value(word):
            yield _Word("", word, before)
            continue
        name, equals, value = word.partition("=")
        option, is_negated = _full_name(_SHORT.get(name, name), kinds)
        if is_negated and equals:
            raise UserError(f"{word}: {name} takes no value; --{option} takes true or false.")
        if not equals:
            value = "false" if is_negated else _take_value(name, option, rest, kinds)
        yield _Word(option, value)
        before = option


def _is_value(word: str) -> bool:
    """Tell a value, which may be a negative number, from an option."""
    return not word.startswith("-") or re.match(r"-\.?\d|-+$", word) is not None


def _take_value(name: str, option: str, rest: deque[str], kinds: Kinds) -> str:
    """Return the value that follows an option; a flag takes true, false or its choices, and is true without."""
    if option in _FLAGS:
        return ""
    if _is_flag(option, kinds):
        words = (*_TRUTH_VALUES, *_list_choices(kinds[option]))
        return rest.popleft() if rest and rest[0].lower() in words else "true"
    if not rest or not _is_value(rest[0]):
        raise UserError(f"{name} needs a value{': ' + _describe_kind(kinds[option]) if option in kinds else ''}.")
    return rest.popleft()


def _full_name(word: str, kinds: Kinds) -> tuple[str, bool]:
    """Return (dotted option, whether it is negated). An option that only one group has needs no group."""
    name = word.lstrip("-").replace("-", "_")
    if not re.match(r"--\w", word):
        raise UserError(f"unknown option {word}.{_nearest_option(name, kinds)}")
    if option := _find_option(name, kinds):
        return option, False
    if name.startswith("no_") and _is_flag(option := _find_option(name[3:], kinds) or "", kinds):
        return option, True
    raise UserError(f"unknown option {word}.{_nearest_option(name, kinds)}")


def _is_flag(option: str, kinds: Kinds) -> bool:
    """Tell whether an option needs no value. Its type is bool, alone or beside the words that may follow it."""
    return bool in _alternatives(kinds.get(option))


def _find_option(name: str, kinds: Kinds) -> str | None:
    """Return the dotted option that ``name`` means; UserError with the remedy for an option of another trainer."""
    owners = [option for option in kinds if option.endswith(f".{name}")]
    if name in kinds or name in ("config", *_FLAGS) or _is_group_or_key(name, kinds):
        return name
    if len(owners) == 1:
        return owners[0]
    ours, remedy = FOREIGN.get(name, ("", ""))
    if ours not in kinds:
        return None
    if remedy:
        raise UserError(f"--{name.replace('_', '-')} is an option of other trainers: {remedy}.")
    return ours


def _is_group_or_key(name: str, kinds: Kinds) -> bool:
    """Tell whether ``name`` is a group of options, or a key of an option that is a mapping."""
    owner = name.partition(".")[0]
    is_key = "." in name and get_origin(kinds.get(owner)) is dict
    return is_key or any(option.startswith(f"{name}.") for option in kinds)


def _assign_words(given: list[_Word], options: type, usage: str) -> list[_Word]:
    """Give each word without an option to the next positional field, which may take all further ones."""
    if asks_for_help := [word for word in given if word.option == "help"]:
        return asks_for_help
    names = {word.option for word in given}
    repeated = {f.name for f in _fields(options) if _is_repeated(f)}
    free = deque(f.name for f in _fields(options) if "positional" in f.metadata and f.name not in names)
    assigned = []
    for word in given:
        if not word.option and not free:
            raise UserError(f"unexpected word {word.value!r}{_about_option(word.before, options)}.\n{usage}")
        takes_all = bool(free) and free[0] in repeated
        assigned.append(word if word.option else word._replace(option=free[0] if takes_all else free.popleft()))
    return [_require_text(word) for word in assigned]


def _require_text(word: _Word) -> _Word:
    """Return the word. Raises UserError where it is empty, as an unset variable of a shell leaves it."""
    if word.value == "":
        raise UserError(f"{word.option}='' must not be empty (an unset variable?)")
    return word


def _split_repeated(given: list[_Word], options: type) -> tuple[list[_Word], dict[str, tuple[str, ...]]]:
    """Return the words of other options, and those of the repeated field, if it has any."""
    found = {
        f.name: tuple(word.value for word in given if word.option == f.name)
        for f in _fields(options)
        if _is_repeated(f)
    }
    return [word for word in given if word.option not in found], {name: words for name, words in found.items() if words}


def _about_option(option: str, options: type) -> str:
    """Say what the option before an unexpected word takes."""
    kind = dict(_list_options(options)).get(option)
    if kind is None:
        return ""
    return f": {_spell(option.rpartition('.')[2])} takes {_describe_kind(kind)}{FLAG_HINTS.get(option, '')}"


def _plain_value(text: str) -> Any:
    """Return the value that a word has in YAML; a wrong one is refused later, by its type."""
    try:
        return strict_yaml.load(text)
    except yaml.YAMLError:
        return text


def _flatten(values: Mapping[str, Any], kinds: Kinds, prefix: str = "") -> dict[str, Any]:
    """Return nested options as {dotted option: value}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, kinds, f"{name}.") if isinstance(value, dict) and name not in kinds else {name: value}
    return flat


def _merge(given: list[_Word], config: Path | None, options: type, usage: str) -> list[str]:
    """Return all options, those of files first, as words ``--option=value``."""
    kinds = dict(_list_options(options))
    values: dict[str, Any] = {}
    for file in [config, *(Path(word.value) for word in given if word.option == "config")]:
        values = _join(values, _flatten(_read_file(file, options), kinds) if file else {})
    typed = [word for word in given if word.option != "config"]
    values = _join(values, _flatten({word.option: _plain_value(word.value) for word in typed}, kinds))
    if "help" not in values:
        _require_all(options, values, usage)
    names = {word.option for word in typed}
    words = [_Word(option, _as_word(value)) for option, value in values.items() if option not in names] + typed
    return [f"--{option}={value}" if value or option not in _FLAGS else f"--{option}" for option, value, _ in words]


def _require_all(options: type, values: Mapping[str, Any], usage: str) -> None:
    """Raise UserError where a field without a default is not given."""
    for field in _fields(options):
        if _is_required(field) and field.name not in values:
            raise UserError(f"{field.metadata.get('positional') or _spell(field.name)} is missing.\n{usage}")


def _join(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of both; a value from below that one from above replaces or contradicts is left out."""
    return {option: value for option, value in below.items() if not _gives_way(option, value, above)} | dict(above)


def _gives_way(option: str, value: Any, above: Mapping[str, Any]) -> bool:
    """Tell whether a value is contradicted by the values ``above``."""
    rows = [row for row in CONTRADICTIONS if row.option in above and f"{option}.".startswith(f"{row.overridden}.")]
    return any(row.clash(above[row.option], value) for row in rows)


def _as_word(value: Any) -> str:
    """Return a value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _expand_home(value: Any) -> Any:
    """Return a path below ~ in full: the shell leaves it in YAML and behind an equals sign."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _read_file(file: Path, options: type) -> dict[str, Any]:
    """Return the options of a config file.

    Raises UserError where the file is missing, is not a mapping, repeats a key or has an unknown key.
    """
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
    return values


def _check_keys(values: Any, options: type, where: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected `option: value` lines, found {values!r}.")
    hints = get_type_hints(options)
    for key, value in values.items():
        if key not in hints:
            remedy = _name_group(str(key), options) or did_you_mean(str(key), hints)
            raise UserError(f"{where}: unknown option {key!r}.{remedy}")
        if dataclasses.is_dataclass(hints[key]):
            _check_keys(value, hints[key], f"{where}: {key}")  # type: ignore[arg-type]
        elif isinstance(value, str) and not _takes_text(hints[key]):
            raise UserError(f"{where}: {key}={value} is not valid: it must be {_describe_kind(hints[key])}.")


def _name_group(key: str, options: type) -> str:
    """Name the group that an option belongs to."""
    groups = [option.rpartition(".")[0] for option, _ in _list_options(options) if option.endswith(f".{key}")]
    return f" It belongs to the group {groups[0]}: write `{groups[0]}:` and, indented, `{key}:`." if groups else ""


def _explain(message: str, kinds: Kinds) -> str:
    """Turn jsonargparse's message into one line that names the option and what it takes."""
    key = re.search(r'Parser key "([\w.]+)"', message)
    got = re.findall(r"(?:Got|Given) value: (.*)", message)
    if key and got and key[1] in kinds:
        value, kind = got[-1], kinds[key[1]]
        remedy = did_you_mean(value, _list_choices(kind))
        return f"{key[1]}={value} is not valid: it must be {_describe_kind(kind)}.{remedy}"
    return " ".join(message.split())


def _nearest_option(word: str, kinds: Kinds) -> str:
    names = {option.rpartition(".")[2] for option in kinds} | set(kinds)
    return re.sub(r"[\w.]+(?=[,?])", lambda match: _spell(match[0]), did_you_mean(word, sorted(names)))


def _takes_text(kind: Any) -> bool:
    return any(part is str or get_origin(part) is Literal for part in _alternatives(kind))


def _list_choices(kind: Any) -> list[str]:
    """Return the words of the Literals in a type."""
    literals = [part for part in _alternatives(kind) if get_origin(part) is Literal]
    return [str(choice) for part in literals for choice in get_args(part)]


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the parts of a union; both spellings, ``int | None`` and ``Optional``, which Literals turn into."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _describe_kind(kind: Any) -> str:
    """Say in words what a type takes: ``Literal["a", "b"]`` is "a or b", ``int | None`` "an integer or null"."""
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if len(_alternatives(kind)) > 1:
        return " or ".join(_describe_kind(part) for part in _alternatives(kind))
    if get_origin(kind) is tuple:
        example = "1" if int in get_args(kind) else "0.5"
        return f"{len(get_args(kind))} numbers, as [{', '.join([example] * len(get_args(kind)))}]"
    return _NOUNS.get(kind, "a mapping, as {name: value}")
