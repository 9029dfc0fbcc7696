"""Iluvatar: one declaration a chip, all alike but for their names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from hami.model.container import Container, integer
from hami.model.document import read_name
from hami.model.names import VendorWord, WireError
from hami.model.section import USUAL, named, read_keys
from hami.model.vendor import Notes, Resources, Rule, SelectKeys, Shaped, Vendor

CHIPS: Final = ("MR-V100", "MR-V50", "BI-V150", "BI-V100")
"""The chart's list."""


def whole_cores(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """Several cards are whole in cores, written as their total; the plug-in wants the container's name."""
    count = integer(container, vendor.resources.count, low=1, kinds=("limits",)) or 0
    cores = {vendor.resources.cores: 100 * count} if count > 1 and vendor.resources.cores else {}
    # The variable's name is spelled so.
    return Shaped(limits=cores, env={"SOL_CONTINER_NAME": container.name})


def declared(word: str) -> Vendor:
    """The declaration of one chip, with the chart's names."""
    return Vendor(
        name=VendorWord(word),
        config_section="iluvatars",
        resources=Resources(
            count=f"iluvatar.ai/{word}-vgpu", memory=f"iluvatar.ai/{word}.vMem", cores=f"iluvatar.ai/{word}.vCore"
        ),
        node_key=f"hami.io/node-{word}-register",
        pending_key=f"hami.io/{word}-devices-to-allocate",
        done_key=f"hami.io/{word}-devices-allocated",
        handshake_key=f"hami.io/node-handshake-{word}",
        select=SelectKeys(uuid_in=f"hami.io/use-{word}-uuid", uuid_out=f"hami.io/no-use-{word}-uuid"),
        rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.CORES_AS_ASKED,
        default_count=0,
        memory_factor=256,
        shape=whole_cores,
    )


ILUVATAR: Final = replace(declared(CHIPS[0]), name=VendorWord("Iluvatar"))
"""What all chips have in common; a cluster has one declaration for each chip that its configuration lists."""


def configured(section: object) -> tuple[Vendor, ...]:
    """One declaration for each listed chip; without a list, for each of the chart's."""
    if section is None:
        return tuple(map(declared, CHIPS))
    if not isinstance(section, list):
        raise WireError("iluvatars", "a list of chips", section)
    return tuple(_configured(entry, f"iluvatars[{i}]") for i, entry in enumerate(section))


def _configured(entry: object, path: str) -> Vendor:
    found: Mapping[str, Any] = read_keys(entry, path, {"commonWord": read_name})
    if not found.get("commonWord"):
        raise WireError(f"{path}.commonWord", "the chip's word", found.get("commonWord", ""))
    return named(declared(found["commonWord"]), entry, USUAL, path)
