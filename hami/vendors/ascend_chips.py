"""The Ascend chips: those that the chart knows, and those that a configuration lists."""

from dataclasses import replace
from typing import Any, Final

from hami.model.document import integer_between, read_flag, read_folded, read_name, read_text
from hami.model.names import INT32_MAX, VendorWord, WireError
from hami.model.section import named, read_keys
from hami.model.vendor import Vendor
from hami.vendors.ascend import Chip, Template, declared

_amount = integer_between(0, INT32_MAX)


def _templates(text: str) -> tuple[Template, ...]:
    """`name memory cores cpus, ...`"""
    rows = [row.split() for row in text.split(",")]
    return tuple(Template(name=n, memory_mib=int(m), ai_cores=int(c), ai_cpus=int(p)) for n, m, c, p in rows)


def _chip(
    word: str, mib: int, cores: int, cpus: int, templates: str, *, capacity: int = 0, super_pod: bool = False
) -> Chip:
    return Chip(
        word=word,
        allocatable_mib=mib,
        capacity_mib=capacity or mib,
        ai_cores=cores,
        ai_cpus=cpus,
        templates=_templates(templates),
        super_pod=super_pod,
    )


_HALVES: Final = "vir05_1c_16g 16384 5 1, vir10_3c_32g 32768 10 3"
CHIPS: Final = (
    _chip("Ascend910A", 32768, 30, 0, "vir02 2184 2 0, vir04 4369 4 0, vir08 8738 8 0, vir16 17476 16 0"),
    _chip("Ascend910B2", 65536, 24, 6, "vir03_1c_8g 8192 3 1, vir06_1c_16g 16384 6 1, vir12_3c_32g 32768 12 3"),
    _chip("Ascend910B3", 65536, 20, 7, _HALVES),
    _chip("Ascend910B4-1", 65536, 20, 7, _HALVES),
    _chip("Ascend910B4", 32768, 20, 7, "vir05_1c_8g 8192 5 1, vir10_3c_16g 16384 10 3"),
    _chip("Ascend310P", 21527, 8, 7, "vir01 3072 1 1, vir02 6144 2 2, vir04 12288 4 4", capacity=24576),
    _chip("Ascend910C", 65536, 20, 7, _HALVES, super_pod=True),
)
"""The chart's list: memory to give out, AI cores, AI CPUs (0 = not counted), templates."""

ASCEND: Final = replace(declared(CHIPS[2]), name=VendorWord("Ascend"))
"""What all chips have in common; a cluster has one declaration for each chip that its configuration lists."""


def configured(section: object) -> tuple[Vendor, ...]:
    """One declaration for each listed chip; without a list, for each of the chart's."""
    folded = read_folded({} if section is None else section, "vnpus")
    soft = read_flag(folded.get("hamivnpucore") or False, "vnpus.hamiVnpuCore")
    listed = folded.get("configs")
    if listed is None:
        return tuple(declared(replace(chip, soft=soft)) for chip in CHIPS)
    if not isinstance(listed, list):
        raise WireError("vnpus.configs", "a list of chips", listed)
    return tuple(_configured(entry, f"vnpus.configs[{i}]", soft) for i, entry in enumerate(listed))


def _configured(entry: object, path: str, soft: bool) -> Vendor:
    keys = {
        "commonWord": read_name,
        "memoryAllocatable": _amount,
        "memoryCapacity": _amount,
        "aiCore": _amount,
        "aiCPU": _amount,
        "runtimeClassName": read_text,
        "overwriteEnv": read_flag,
        "superPod": read_flag,
        "templates": _read_templates,
    }
    found: dict[str, Any] = read_keys(entry, path, keys)
    if not found.get("commonWord"):
        raise WireError(f"{path}.commonWord", "the chip's word", found.get("commonWord", ""))
    chip = Chip(
        word=found["commonWord"],
        allocatable_mib=found.get("memoryAllocatable", 0),
        capacity_mib=found.get("memoryCapacity", found.get("memoryAllocatable", 0)),
        ai_cores=found.get("aiCore", 0),
        ai_cpus=found.get("aiCPU", 0),
        templates=found.get("templates", ()),
        super_pod=found.get("superPod", False),
        soft=soft,
    )
    names = {"count": "resourceName", "memory": "resourceMemoryName", "cores": "resourceCoreName"}
    return replace(
        named(declared(chip), entry, names, path),
        runtime_class=found.get("runtimeClassName", ""),
        hide_unrequested=found.get("overwriteEnv", False),
    )


def _read_templates(value: object, path: str) -> tuple[Template, ...]:
    if not isinstance(value, list):
        raise WireError(path, "a list of templates", value)
    keys = {"name": read_text, "memory": _amount, "aiCore": _amount, "aiCPU": _amount}
    found = [read_keys(entry, f"{path}[{i}]", keys) for i, entry in enumerate(value)]
    templates = [
        Template(
            name=one.get("name", ""),
            memory_mib=one.get("memory", 0),
            ai_cores=one.get("aiCore", 0),
            ai_cpus=one.get("aiCPU", 0),
        )
        for one in found
    ]
    return tuple(sorted(templates, key=lambda one: one.memory_mib))
