"""The .cfg format: read into typed sections and written. One line of error names what darknet would misread."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.darknet.options import OPTION_ALIASES, SECTION_ALIASES, SECTIONS, VALUE_ALIASES, Value
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


def read_cfg(path: str | Path) -> Cfg:
    """Read and check a .cfg file.

    Raises:
        UserError: there is no such file, it is not a cfg, or a section, option or value is unknown; the message
            names file, line and option.
    """
    return parse_cfg(_read_text(Path(path)), str(path))


def parse_cfg(text: str, file: str = "cfg") -> Cfg:
    """Parse the text of a .cfg; ``file`` names it in messages. Errors as for `read_cfg`."""
    sections = [_read_section(kind, line, options, file) for kind, line, options in _split_sections(text, file)]
    if not sections or sections[0].kind != "net":
        raise UserError(f"{file}:{sections[0].line if sections else 1}: a cfg begins with [net]")
    net, *layers = sections
    if not layers:
        raise UserError(f"{file}:{net.line}: there is no layer after [net]")
    for section in layers:
        if section.kind == "net":
            raise UserError(f"{file}:{section.line}: [net] comes only once, as the first section")
    if len(layers) > MAX_LAYERS:
        raise UserError(f"{file}:{layers[MAX_LAYERS].line}: there are {len(layers)} layers, more than {MAX_LAYERS}")
    return Cfg(net, tuple(layers))


def write_cfg(cfg: Cfg, path: str | Path) -> None:
    """Write ``cfg`` to a file that darknet reads."""
    write_text(Path(path), format_cfg(cfg))


def format_cfg(cfg: Cfg) -> str:
    """Return the text of a .cfg, with the given options in their order and a blank line after each section."""
    return "".join(_format_section(section) for section in (cfg.net, *cfg.layers))


_Raw = tuple[str, int, list[tuple[str, str, int]]]


def _split_sections(text: str, file: str) -> Iterator[_Raw]:
    """Yield (heading, line, [(option, text, line)]) without blanks and comments."""
    current: _Raw | None = None
    for number, whole in enumerate(text.splitlines(), 1):
        line = "".join(whole.partition("#")[0].split())
        if not line or line[0] == ";":
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
    name = line.strip("[]")
    kind = SECTION_ALIASES.get(name, name)
    if line != f"[{name}]" or kind not in SECTIONS:
        hint = did_you_mean(name, [*SECTIONS, *SECTION_ALIASES])
        raise UserError(f"{file}:{number}: unknown section {_clip(line)}.{hint}".rstrip("."))
    return kind


def _read_section(kind: str, line: int, options: list[tuple[str, str, int]], file: str) -> Section:
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    for given, text, number in options:
        name = OPTION_ALIASES.get(given, given)
        where = f"{file}:{number}: [{kind}]"
        if name not in SECTIONS[kind]:
            raise UserError(f"{where} unknown option {_clip(given)}.{did_you_mean(name, SECTIONS[kind])}".rstrip("."))
        if name in values:
            raise UserError(f"{where} {_clip(given)} is given twice, first on line {lines[name]}")
        try:
            value = SECTIONS[kind][name].read(text)
        except ValueError as error:
            raise UserError(f"{where} {_clip(given)}={_clip(text)} {error}") from None
        values[name], lines[name] = VALUE_ALIASES.get(value, value), number
    section = Section(kind, values, lines, line, file)
    for name, option in SECTIONS[kind].items():
        if option.required and name not in values:
            raise section.error(name, "is missing")
    return section


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
