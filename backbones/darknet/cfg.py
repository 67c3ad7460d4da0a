"""The .cfg format: read into typed sections and written. One line of error names what darknet would misread."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.darknet.options import (
    HEADS,
    OPTION_ALIASES,
    SECTION_ALIASES,
    SECTIONS,
    UNREAD_SECTIONS,
    VALUE_ALIASES,
    Option,
    Value,
)
from backbones.errors import UserError, did_you_mean
from backbones.files import write_text

MAX_LAYERS = 1000
MAX_BYTES = 1 << 20
IMAGE = -1
"""Number of the network's input among the numbers of layers."""


@dataclass(frozen=True)
class Section:
    """One ``[section]`` with the options that the file gives."""

    kind: str
    """Name of the section; darknet's short forms such as ``[conv]`` are spelled out."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """Option -> value, typed by the table in `options`. Options that the file leaves out are missing."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Option -> line of the file, from 1."""
    line: int = 0
    """Line of the heading."""
    file: str = "cfg"
    """Name of the file, for messages."""

    def __getitem__(self, option: str) -> Any:
        """Return the value of an option, or its default."""
        return self.values.get(option, SECTIONS[self.kind][option].default)

    def error(self, option: str, rule: str) -> UserError:
        """Return an error that names file, line, section and option."""
        line = self.lines.get(option, self.line)
        shown = f"{option}={_format_value(self.values[option])}" if option in self.values else option
        return UserError(f"{self.file}:{line}: [{self.kind}] {shown} {rule}")


@dataclass(frozen=True)
class Cfg:
    """Network as darknet describes it: ``[net]`` and the layers in order."""

    net: Section
    layers: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    """What the file says without effect, one line each with file and line."""
    head: Section | None = None
    """First head of a detector, behind the layers. Its options are not read."""
    is_cut: bool = False
    """True when only the first layers were asked for."""

    @property
    def is_backbone(self) -> bool:
        """Return whether these layers are not a whole network: their output is a feature map, not logits."""
        return self.is_cut or self.head is not None


def read_cfg(path: str | Path, *, layers: int | None = None) -> Cfg:
    """Read and check a .cfg file.

    A detector is read up to its first head (``[yolo]``, ``[region]``, ...).

    Args:
        path: the file.
        layers: number of first layers to read; the rest of the file may hold anything. None reads all.

    Raises:
        UserError: there is no such file, it is not a cfg, or a section, option or value is unknown; the message
            names file, line and option.
    """
    return parse_cfg(_read_text(Path(path)), str(path), layers=layers)


def parse_cfg(text: str, file: str = "cfg", *, layers: int | None = None) -> Cfg:
    """Parse the text of a .cfg; ``file`` names it in messages. Arguments and errors as for `read_cfg`."""
    if layers is not None and layers < 1:
        raise UserError(f"layers={layers}: {file} can be read from 1 layer on")
    notes: list[str] = []
    sections: list[Section] = []
    head: Section | None = None
    for kind, line, options in _split_sections(text, file):
        if kind in HEADS:
            head = Section(kind, line=line, file=file)
            break
        sections.append(_read_section(kind, line, options, file, notes))
        if len(sections) - 1 == layers:
            break
    _require_network(sections, file, head)
    found = len(sections) - 1
    if layers is not None and layers != found:
        raise UserError(f"layers={layers}: {file} has {found} layers{' before its first head' if head else ''}")
    return Cfg(sections[0], tuple(sections[1:]), tuple(notes), head, layers is not None)


def _require_network(sections: list[Section], file: str, head: Section | None) -> None:
    """Raise `UserError` unless the sections are [net] and at most `MAX_LAYERS` layers."""
    if not sections or sections[0].kind != "net":
        raise UserError(f"{file}:{sections[0].line if sections else 1}: a cfg begins with [net]")
    net, *layers = sections
    if not layers and head:
        raise UserError(f"{file}:{head.line}: [{head.kind}] is the head of a detector; there is no layer before it")
    if not layers:
        raise UserError(f"{file}:{net.line}: there is no layer after [net]")
    for section in layers:
        if section.kind == "net":
            raise UserError(f"{file}:{section.line}: [net] comes only once, as the first section")
    if len(layers) > MAX_LAYERS:
        raise UserError(f"{file}:{layers[MAX_LAYERS].line}: there are {len(layers)} layers, more than {MAX_LAYERS}")


def write_cfg(cfg: Cfg, path: str | Path) -> None:
    """Write ``cfg`` to a file that darknet reads."""
    write_text(Path(path), format_cfg(cfg))


def format_cfg(cfg: Cfg) -> str:
    """Return the text of a .cfg, with the given options in their order and a blank line after each section."""
    return "".join(_format_section(section) for section in (cfg.net, *cfg.layers))


_Raw = tuple[str, int, list[tuple[str, str, int]]]
_BLANKS = str.maketrans("", "", " \t\r")
"""Characters that darknet removes from a line, wherever they are."""


def _split_sections(text: str, file: str) -> Iterator[_Raw]:
    """Yield (heading, line, [(option, text, line)]) without blanks and without lines of comment."""
    current: _Raw | None = None
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.translate(_BLANKS)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if current:
                yield current
            current = (_read_heading(line, number, file), number, [])
        elif current is None:
            raise UserError(f"{file}:{number}: {_clip(line)} comes before the first [section]")
        else:
            option, equals, value = line.partition("=")
            if not equals:
                raise UserError(f"{file}:{number}: {_clip(line)} is neither [section] nor option=value")
            current[2].append((option, value, number))
    if current:
        yield current


def _read_heading(line: str, number: int, file: str) -> str:
    """Return the full name of a section; UserError where nothing here reads it."""
    name = line.strip("[]")
    kind = SECTION_ALIASES.get(name, name)
    if line == f"[{name}]" and (kind in SECTIONS or kind in HEADS):
        return kind
    where = f"{file}:{number}:"
    if name in UNREAD_SECTIONS:
        raise UserError(
            f"{where} [{name}] is not supported here; {UNREAD_SECTIONS[name]}. "
            "load_cfg(..., layers=N) takes the layers before it"
        )
    if line.startswith("[") and any(mark in line for mark in "#;"):
        raise UserError(f"{where} {_clip(line)}: darknet takes a comment behind a heading for a part of the name")
    hint = did_you_mean(name, [*SECTIONS, *SECTION_ALIASES])
    raise UserError(f"{where} unknown section {_clip(line)}.{hint}".rstrip("."))


def _read_section(kind: str, line: int, options: list[tuple[str, str, int]], file: str, notes: list[str]) -> Section:
    """Return one section; what has no effect is added to ``notes``."""
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    spellings: dict[str, str] = {}
    for given, text, number in options:
        name = OPTION_ALIASES.get(given, given)
        shown = f"{file}:{number}: [{kind}] {_clip(given)}={_clip(text)}"
        if spellings.get(name) == given:
            notes.append(f"{shown} has no effect: the first one counts, on line {lines[name]}")
            continue
        if name not in SECTIONS[kind]:
            hint = did_you_mean(name, SECTIONS[kind])
            raise UserError(f"{file}:{number}: [{kind}] unknown option {_clip(given)}.{hint}".rstrip("."))
        value = _read_value(SECTIONS[kind][name], text, shown)
        if name in values:
            raise UserError(f"{shown} is given twice, on line {lines[name]} as {spellings[name]}")
        values[name], lines[name], spellings[name] = value, number, given
        if SECTIONS[kind][name].unused and value != SECTIONS[kind][name].default:
            notes.append(f"{shown} has no effect here: {SECTIONS[kind][name].unused}")
    section = Section(kind, values, lines, line, file)
    for name, option in SECTIONS[kind].items():
        if option.required and name not in values:
            raise section.error(name, "is missing")
    return section


def _read_value(option: Option, text: str, shown: str) -> Value:
    """Return the typed value of an option; ``shown`` begins the message of the error."""
    try:
        value = option.read(_cut_comment(option, text))
    except ValueError as error:
        raise UserError(f"{shown} {error}") from None
    return VALUE_ALIASES.get(value, value)


def _cut_comment(option: Option, text: str) -> str:
    """Return the value without a comment behind it, which darknet overlooks behind numbers only."""
    value, mark, comment = _COMMENT.match(text).groups()  # type: ignore[union-attr]
    if mark and (option.form == "word" or (option.form == "list" and "," in comment)):
        raise ValueError("has a comment on its line: darknet takes it for a part of the value")
    return value


_COMMENT = re.compile(r"([^#;]*)([#;]?)(.*)")


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"there is no cfg {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is {path.stat().st_size} bytes large: that is no cfg")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if "\0" in text:
        raise UserError(f"{path} is not a text file, so it is no cfg")
    return text


def _format_section(section: Section) -> str:
    rows = "".join(f"{option}={_format_value(value)}\n" for option, value in section.values.items())
    return f"[{section.kind}]\n{rows}\n"


def _format_value(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(_format_value(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clip(text: str) -> str:
    """Shorten ``text`` to one printable line for a message."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:61])
    return shown if len(text) <= 60 else f"{shown[:57]}..."
