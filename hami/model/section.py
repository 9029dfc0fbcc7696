"""A family's section of the device configuration: resource names and factors into its declaration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hami.model.document import Read, integer_between, read_folded, read_name
from hami.model.names import INT32_MAX, WireError
from hami.model.vendor import Vendor

read_factor = integer_between(-INT32_MAX, INT32_MAX)


def read_keys(section: object, path: str, known: Mapping[str, Read]) -> dict[str, Any]:
    """The values of the known keys that are there, in any capitals; other keys say nothing here."""
    folded = read_folded({} if section is None else section, path)
    return {
        key: read(folded[key.lower()], f"{path}.{key}")
        for key, read in known.items()
        if folded.get(key.lower()) is not None
    }


def named(vendor: Vendor, section: object, keys: Mapping[str, str], path: str = "") -> Vendor:
    """The declaration with a cluster's resource names; `keys` are configuration keys by field of `Resources`.

    `memoryFactor` is read where the family has it. A name that is not written keeps its default; an empty one removes
    the resource, except the count.
    """
    path = path or vendor.config_section
    found = read_keys(section, path, {**dict.fromkeys(keys.values(), read_name), "memoryFactor": read_factor})
    names = {field: found[key] for field, key in keys.items() if key in found}
    if names.get("count") == "":
        raise WireError(f"{path}.{keys['count']}", "a resource name", "")
    factor = max(1, found.get("memoryFactor", vendor.memory_factor)) if vendor.takes_factor else vendor.memory_factor
    resources = replace(vendor.resources, **names)
    # What asks without the count is named anew with the others.
    renamed = {getattr(vendor.resources, field): getattr(resources, field) for field in names}
    resources = replace(resources, also=tuple(renamed.get(name, name) for name in resources.also))
    return replace(vendor, resources=resources, memory_factor=factor)


USUAL = {"count": "resourceCountName", "memory": "resourceMemoryName", "cores": "resourceCoreName"}
"""What most families call their keys."""
