"""Read a .cfg into typed sections, refusing in one line what darknet would misread or crash on; write it back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.darknet.options import OPTION_ALIASES, SECTION_ALIASES, SECTIONS, VALUE_ALIASES, Value
from backbones.errors import UserError, did_you_mean

MAX_LAYERS = 1000
MAX_BYTES = 1 << 20
IMAGE = -1
"""The number that stands for the network's input where layers are counted."""


@dataclass(frozen=True)
class Section:
    """One ``[section]`` with the options that the file gives it."""

    kind: str
    """Its name; darknet's short forms (``[conv]``) are spelled out."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """Option -> value as typed by the table in `options`; what the file leaves out is not here."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Option -> line of the file, from 1."""
    line: int = 0
    """Line of the heading."""
    file: str = "cfg"
    """Where it was read from, for messages."""

    def __getitem__(self, option: str) -> Any:
        """Return the value of an option, or its default."""
        return self.values.get(option, SECTIONS[self.kind][option].default)

    def error(self, option: str, rule: str) -> UserError:
        """Return an error that names file, line, section and option."""
        line = self.lines.get(option, self.line)
        shown = f"{option}={_text(self.values[option])}" if option in self.values else option
        return UserError(f"{self.file}:{line}: [{self.kind}] {shown} {rule}")


@dataclass(frozen=True)
class Cfg:
    """A network as darknet describes it: ``[net]`` and its layers in order."""

    net: Section
    layers: tuple[Section, ...]


def read_cfg(path: str | Path) -> Cfg:
    """Read and check a .cfg file.

    Raises:
        UserError: there is no such file, it is not a cfg, or a section, option or value is not understood; the
            message names file, line and option.
    """
    return parse_cfg(_text_of(Path(path)), str(path))


def parse_cfg(text: str, file: str = "cfg") -> Cfg:
    """Parse the text of a .cfg; ``file`` names it in messages. Errors as for `read_cfg`."""
    sections = [_typed(kind, line, options, file) for kind, line, options in _raw_sections(text, file)]
    if not sections or sections[0].kind != "net":
        raise UserError(f"{file}:{sections[0].line if sections else 1}: a cfg begins with [net]")
    net, *layers = sections
    if not layers:
        raise UserError(f"{file}:{net.line}: there is no layer after [net]")
    for section in layers:
        if section.kind == "net":
            raise UserError(f"{file}:{section.line}: [net] stands once, as the first section")
    if len(layers) > MAX_LAYERS:
        raise UserError(f"{file}:{layers[MAX_LAYERS].line}: there are {len(layers)} layers, more than {MAX_LAYERS}")
    return Cfg(net, tuple(layers))


def write_cfg(cfg: Cfg, path: str | Path) -> None:
    """Write ``cfg`` to a file that darknet reads."""
    Path(path).write_text(format_cfg(cfg))


def format_cfg(cfg: Cfg) -> str:
    """Return the text of a .cfg: the options given, in their order, and one blank line after each section."""
    return "".join(_format_section(section) for section in (cfg.net, *cfg.layers))


def layers_equal(a: Sequence[Section], b: Sequence[Section]) -> bool:
    """Tell whether two lists of layers mean the same, wherever they were read and however they are ordered."""
    return [_meaning(section) for section in a] == [_meaning(section) for section in b]


def _meaning(section: Section) -> tuple[str, dict[str, Any]]:
    return section.kind, {option: section[option] for option in SECTIONS[section.kind]}


_Raw = tuple[str, int, list[tuple[str, str, int]]]


def _raw_sections(text: str, file: str) -> Iterator[_Raw]:
    """Yield (heading, line, [(option, text, line)]): blanks stripped everywhere, comments left out."""
    current: _Raw | None = None
    for number, whole in enumerate(text.splitlines(), 1):
        line = "".join(whole.partition("#")[0].split())
        if not line or line[0] == ";":
            continue
        if line[0] == "[":
            if current:
                yield current
            current = (_heading(line, number, file), number, [])
        elif current is None:
            raise UserError(f"{file}:{number}: {_clip(line)} stands before the first [section]")
        else:
            option, equals, value = line.partition("=")
            if not equals:
                raise UserError(f"{file}:{number}: {_clip(line)} is neither [section] nor option=value")
            current[2].append((option, value, number))
    if current:
        yield current


def _heading(line: str, number: int, file: str) -> str:
    name = line.strip("[]")
    kind = SECTION_ALIASES.get(name, name)
    if line != f"[{name}]" or kind not in SECTIONS:
        hint = did_you_mean(name, [*SECTIONS, *SECTION_ALIASES])
        raise UserError(f"{file}:{number}: unknown section {_clip(line)}.{hint}".rstrip("."))
    return kind


def _typed(kind: str, line: int, options: list[tuple[str, str, int]], file: str) -> Section:
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    for given, text, number in options:
        name = OPTION_ALIASES.get(given, given)
        where = f"{file}:{number}: [{kind}]"
        if name not in SECTIONS[kind]:
            raise UserError(f"{where} unknown option {_clip(given)}.{did_you_mean(name, SECTIONS[kind])}".rstrip("."))
        if name in values:
            raise UserError(f"{where} {_clip(given)} stands twice, first on line {lines[name]}")
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


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"there is no cfg {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is {path.stat().st_size} bytes large: that is no cfg")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if "\0" in text:
        raise UserError(f"{path} is not a text file, so it is no cfg")
    return text


def _format_section(section: Section) -> str:
    rows = "".join(f"{option}={_text(value)}\n" for option, value in section.values.items())
    return f"[{section.kind}]\n{rows}\n"


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clip(text: str) -> str:
    """Keep a message to one readable line, whatever the file holds."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:61])
    return shown if len(text) <= 60 else f"{shown[:57]}..."
