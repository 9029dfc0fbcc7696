#!/usr/bin/env python3
"""Which entry points of the driver's libraries are stood in for, and why the others are not.

`coverage.txt` says of every name what it does, and of those that no row of `hooks.def` answers for why they need none.
This program brings both in step after a change and writes `docs/coverage.md`; `tests/interpose/test_coverage.py` fails
while they are not, or when a header has a name that `coverage.txt` does not know.

A name is what programs call or ask for; it stands for all its symbols: `cuMemAlloc` for `cuMemAlloc` and
`cuMemAlloc_v2`. `coverage.txt` consists of sections, `[what it does] reason`, and the names below each.
"""

import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "sim"))

import symbols as headers  # noqa: E402  (beside the simulated driver, which is no package)

DATA = HERE / "coverage.txt"
PAGE = HERE.parent / "docs" / "coverage.md"
DOES = ("allocates", "frees", "reports", "launches", "neither")
HOOKED = "hooked"
OPEN = "not yet: "


class Section(NamedTuple):
    """Names that do the same and are treated alike for the same reason."""

    does: str
    reason: str


Table = dict[Section, list[str]]


def name_of(symbol: str) -> str:
    """The name without version and stream: what all forms of one function share."""
    name: str = headers.split(symbol)[0]
    return name


def by_name(symbols: Iterable[str]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = defaultdict(set)
    for symbol in symbols:
        names[name_of(symbol)].add(symbol)
    return names


def listed() -> set[str]:
    """Symbols of the checked-in lists: CUDA 11.8, 12.9 and 13.5."""
    files = (HERE / "names-11.8.txt", HERE / "sim" / "cuda_symbols.txt", HERE / "sim" / "nvml_symbols.txt")
    lines = (line for file in files for line in file.read_text().splitlines())
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def hooked() -> set[str]:
    """Symbols that a row of hooks.def stands in for."""
    return set(re.findall(r"^HOOK\(\w+, (\w+),", (HERE / "hooks.def").read_text(), re.M))


def read(text: str) -> Table:
    """Raises ValueError for a name before any section, a section of unknown kind, a name given twice."""
    table: Table = {}
    names: list[str] | None = None
    seen: set[str] = set()
    for line in text.splitlines():
        if head := re.fullmatch(r"\[(\w+)\] (.+)", line):
            if head[1] not in DOES:
                raise ValueError(f"[{head[1]}]: must be one of {', '.join(DOES)}")
            names = table.setdefault(Section(head[1], head[2]), [])
        elif line and not line.startswith("#"):
            if names is None:
                raise ValueError(f"names before the first section: {line.strip()}")
            if twice := seen.intersection(line.split()):
                raise ValueError(f"given twice: {', '.join(sorted(twice))}")
            names += line.split()
            seen.update(line.split())
    return table


def write(table: Table) -> str:
    parts = [
        "# What every entry point of the driver's libraries does; and why those without a row in hooks.def need none.",
        "# After a change here or in hooks.def: python interpose/coverage.py",
        "",
    ]
    for section, names in table.items():
        if names:
            parts += [f"[{section.does}] {section.reason}", *_lines(sorted(names)), ""]
    return "\n".join(parts)


def _lines(names: list[str]) -> list[str]:
    return textwrap.wrap(
        " ".join(names),
        118,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def settle(table: Table, symbols: set[str], hooks: set[str]) -> tuple[Table, list[str]]:
    """The table with every name that is wholly stood in for under "hooked", and what only a person can put right."""
    settled: Table = {section: [] for section in _order(table)}
    known = by_name(symbols)
    faults = [f"{name}: in no header" for names in table.values() for name in names if name not in known]
    for section, names in table.items():
        for name in set(names) & known.keys():
            whole = known[name] <= hooks
            if whole:
                settled[Section(section.does, HOOKED)].append(name)
            elif section.reason == HOOKED:
                faults.append(f"{name}: {', '.join(sorted(known[name] - hooks))} not in hooks.def, give the reason")
            else:
                settled[section].append(name)
    told = {name for names in table.values() for name in names}
    faults += [f"{name}: say in coverage.txt what it does" for name in sorted(known.keys() - told)]
    return settled, faults


def _order(table: Table) -> list[Section]:
    """Sections by what they do: the hooked ones, those with a reason, those that are open."""
    sections = dict.fromkeys([*table, *(Section(does, HOOKED) for does in DOES)])
    return sorted(sections, key=lambda at: (DOES.index(at.does), _treated(at)))


def _treated(section: Section) -> int:
    """0 hooked, 1 needs no hook, 2 open."""
    return 0 if section.reason == HOOKED else 2 if section.reason.startswith(OPEN) else 1


def page(table: Table, symbols: set[str], hooks: set[str]) -> str:
    """docs/coverage.md."""
    known = by_name(symbols)
    parts = [
        "# Coverage of the driver's entry points",
        "",
        "<!-- Written by interpose/coverage.py from interpose/coverage.txt and interpose/hooks.def. -->",
        "",
        f"CUDA 11.8, 12.9 and 13.5 have {len(symbols):,} symbols under {len(known):,} names (`cuMemAlloc` stands for"
        " `cuMemAlloc` and `cuMemAlloc_v2`). What each does, and whether `libvgpu.so` stands in for it:",
        "",
        "| | names | hooked | need no hook | not yet |",
        "|---|---|---|---|---|",
    ]
    for does in DOES:
        counts = [0, 0, 0]
        for section, names in table.items():
            if section.does == does:
                counts[_treated(section)] += len(names)
        parts.append(f"| {does} | {sum(counts)} | {counts[0]} | {counts[1]} | {counts[2]} |")
    parts += [
        "",
        "A test compares this with the vendor's headers: a name of a new CUDA version fails it until it is listed.",
    ]
    parts += ["", "In the column of symbols a dot is the name itself; those in bold are hooked."]
    for does in DOES[:-1]:
        parts += ["", f"## {does.capitalize()}", "", "| name | symbols | |", "|---|---|---|"]
        for section, names in table.items():
            if section.does == does:
                parts += [f"| `{name}` | {_forms(name, known[name], hooks)} | {section.reason} |" for name in names]
    parts += ["", "## Neither"]
    for section, names in table.items():
        if section.does == DOES[-1] and names:
            parts += [
                "",
                f"{section.reason[0].upper()}{section.reason[1:]}: {', '.join(f'`{name}`' for name in names)}.",
            ]
    return "\n".join(parts) + "\n"


def _forms(name: str, symbols: set[str], hooks: set[str]) -> str:
    """The symbols of a name, those that are stood in for in bold; the name itself as a dot."""
    forms = (symbol.removeprefix(name) or "." for symbol in sorted(symbols))
    return " ".join(f"**{form}**" if name + form.strip(".") in hooks else form for form in forms)


def main() -> None:
    table, faults = settle(read(DATA.read_text()), listed(), hooked())
    if faults:
        raise SystemExit("\n".join(faults))
    table = {section: sorted(names) for section, names in table.items()}
    DATA.write_text(write(table))
    PAGE.write_text(page(table, listed(), hooked()))


if __name__ == "__main__":
    main()
