"""A copy of the simulated driver that lacks some functions, also for programs that look them up with `dlsym`.

An entry of the dynamic symbol table without a section is not a definition, so the dynamic linker does not find it.
"""

import struct
from collections.abc import Container
from pathlib import Path

from hami.node.simulated import native_dir

_DYNSYM = 11  # section type
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size


def without(names: Container[str], directory: Path) -> Path:
    """`directory`, filled with both libraries, which have none of `names` there."""
    directory.mkdir(exist_ok=True)
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        image = bytearray((native_dir() / "sim" / library).read_bytes())
        _remove(names, image)
        (directory / library).write_bytes(image)
    return directory


def _remove(names: Container[str], image: bytearray) -> None:
    assert image[:6] == b"\x7fELF\x02\x01", "64 bit, little endian"
    table, entry, count = (*struct.unpack_from("<Q", image, 0x28), *struct.unpack_from("<HH", image, 0x3A))
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + n * entry) for n in range(count)]
    (symbols,) = (section for section in sections if section[1] == _DYNSYM)
    offset, size, strings = symbols[4], symbols[5], sections[symbols[6]][4]
    for at in range(offset, offset + size, _SYMBOL.size):
        name, info, other, *_ = _SYMBOL.unpack_from(image, at)
        text = image[strings + name : image.index(0, strings + name)].decode()
        if text in names:
            _SYMBOL.pack_into(image, at, name, info, other, 0, 0, 0)
