"""Hygon DCU: shares of one card, or several whole cards."""

from typing import Final

from hami.model.container import Container, RequestError, integer
from hami.model.names import VendorWord
from hami.model.section import USUAL, named
from hami.model.vendor import Notes, Resources, Rule, SelectKeys, Shaped, Vendor


def whole_or_one(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """The plug-in gives whole cards wherever a container has more than one, so shares of several would not hold."""
    names = vendor.resources
    count = integer(container, names.count, low=1)
    cores = integer(container, names.cores, low=0)
    memory = integer(container, names.memory, low=0)
    if count is not None and count > 1 and (memory or (cores is not None and cores < 100)):
        where = f"{container.path}.resources.limits[{names.count}]"
        raise RequestError(where, "1 beside a share of memory or cores: several cards are whole", count)
    return Shaped()


DCU: Final = Vendor(
    name=VendorWord("DCU"),
    config_section="hygon",
    resources=Resources(count="hygon.com/dcunum", memory="hygon.com/dcumem", cores="hygon.com/dcucores"),
    node_key="hami.io/node-dcu-register",
    pending_key="hami.io/dcu-devices-to-allocate",
    done_key="hami.io/dcu-devices-allocated",
    handshake_key="hami.io/node-handshake-dcu",
    select=SelectKeys(
        type_in="hygon.com/use-dcutype",
        type_out="hygon.com/nouse-dcutype",
        uuid_in="hygon.com/use-gpuuuid",
        uuid_out="hygon.com/nouse-gpuuuid",
    ),
    rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.CORES_AS_ASKED,
    default_count=0,
    default_cores=100,
    takes_factor=True,
    shape=whole_or_one,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(DCU, section, USUAL),)
