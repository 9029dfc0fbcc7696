"""Moore Threads: 16 units of compute a card, memory in steps of 512 MiB; requests are totals over the cards."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hami.model.claim import Mib, Need
from hami.model.container import Container, amount, integer, section
from hami.model.names import VendorWord
from hami.model.registration import shares_of_capacity
from hami.model.section import USUAL, named
from hami.model.vendor import Notes, Outcome, Resources, Rule, SelectKeys, Shaped, ShapeError, Vendor

CORES: Final = 16
FULL: Final = 96
"""Units of memory that the plug-in takes for a whole card, whatever the model."""
LEGAL: Final = (2, 4, 8, 16, 32, 64, FULL)
INDEX: Final = "mthreads.com/gpu-index"
NODE: Final = "mthreads.com/predicate-node"
TIME: Final = "mthreads.com/predicate-time"
COUNT: Final = "mthreads.com/request-gpu-num"


def fill_in(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """Several cards are whole, written as totals; one card without memory is whole in what is not written."""
    names = vendor.resources
    count = integer(container, names.count, low=1) or 1
    if count > 1:
        limits = {names.cores: CORES * count, names.memory: FULL * count}
        return Shaped(limits=limits, annotations={COUNT: str(count)})
    memory = amount(container, names.memory, ("limits",))
    if memory is None:
        cores = {} if amount(container, names.cores) else {names.cores: CORES}
        limits = cores | {names.memory: FULL}
        # Requests that the API server has filled in by now are not filled in again.
        return Shaped(limits=limits, requests_too=frozenset(limits if section(container, "requests") else ()))
    if memory[0] not in LEGAL:
        shown = ", ".join(map(str, LEGAL))
        raise ShapeError(memory[1], f"sGPU memory request value is invalid, valid values are [{shown}]")
    return Shaped()


def each(need: Need, container: Container, notes: Notes, vendor: Vendor) -> Need:
    """Totals, divided among the cards."""
    memory = Mib(need.memory.amount // need.count) if isinstance(need.memory, Mib) else need.memory
    return replace(need, memory=memory, cores=need.cores // need.count)


def tell(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """The cards of all containers, by index."""
    uuids = dict.fromkeys(share.uuid for segment in outcome.segments for share in segment)
    indices = ",".join(str(outcome.devices[uuid].index) for uuid in uuids)
    return {INDEX: indices, NODE: str(outcome.node), TIME: str(outcome.now_unix * 10**9)}


MTHREADS: Final = Vendor(
    name=VendorWord("Mthreads"),
    config_section="mthreads",
    resources=Resources(count="mthreads.com/vgpu", memory="mthreads.com/sgpu-memory", cores="mthreads.com/sgpu-core"),
    node_key="",
    read=shares_of_capacity("mthreads", cores_each=CORES),
    pending_key="",
    done_key="hami.io/mthreads-vgpu-devices-allocated",
    select=SelectKeys(uuid_in="mthreads.ai/use-gpuuuid", uuid_out="mthreads.ai/nouse-gpuuuid"),
    rules=Rule.SHARED | Rule.CORES_AS_ASKED | Rule.CORES_IN_UNITS | Rule.NEAR,
    lock_key="",
    default_count=0,
    memory_factor=512,
    shape=fill_in,
    refine=each,
    dress=tell,
    dress_keys=(INDEX, NODE, TIME),
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(MTHREADS, section, USUAL),)
