"""AWS Neuron: devices that are neighbours, or single cores; how many cores a device has is its node's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from hami.model.claim import Mib, Need, Role, Segments, Share, Why
from hami.model.container import Container, RequestError, amount, integer
from hami.model.device import Device
from hami.model.names import INT32_MAX, DeviceUuid, VendorWord, WireError
from hami.model.quantity import whole
from hami.model.registration import MOST_CARDS, capacity
from hami.model.section import named
from hami.model.vendor import (
    Chosen,
    NodeFacts,
    Notes,
    Outcome,
    Resources,
    Rule,
    SelectKeys,
    Shaped,
    ShapeError,
    Spot,
    Terms,
    Vendor,
    Wanted,
)

KIND: Final = "AWSNodeType"
IDS: Final = "AWS_NEURON_IDS"
BY: Final = "NEURON_RESOURCE_TYPE"
NODE: Final = "aws.amazon.com/predicate-node"
MOST_CORES: Final = 8
IN_USE, WHOLE, BY_CORE = 1, 2, 4
"""Marks of a share: it is there; its device is given away whole, whatever its text says; cores were asked."""


def read(facts: NodeFacts, vendor: Vendor, problems: list[WireError]) -> tuple[Device, ...] | None:
    """Devices and their cores by the node's capacity; the mode is the number of cores."""
    count, cores = capacity(facts, vendor.resources.count), capacity(facts, vendor.resources.cores)
    each = cores // count if count else 0
    if not count or not each:
        return None
    if each > MOST_CORES or count > MOST_CARDS:
        where = f"status.capacity[{vendor.resources.cores}]"
        raise WireError(where, f"at most {MOST_CORES} for each of at most {MOST_CARDS} devices", cores)
    kind = facts.labels.get("node.kubernetes.io/instance-type", "")
    return tuple(
        Device(
            uuid=DeviceUuid(f"{facts.name}-AWSNeuron-{i}"),
            index=i,
            slots=each,
            memory_mib=0,
            cores=each,
            model=vendor.name,
            mode=str(each),
            custom=((KIND, kind),),
        )
        for i in range(count)
    )


def check(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """Devices from 1, cores 1 or an even number, wherever they are written."""
    for name, top in ((vendor.resources.count, INT32_MAX), (vendor.resources.cores, 2 * INT32_MAX)):
        for kind in ("limits", "requests"):
            found = amount(container, name, (kind,))
            value = None if found is None else whole(found[0])
            if found is None:
                continue
            if value is None:
                raise ShapeError(found[1], f"{name} must be an integer")
            if value <= 0:
                raise ShapeError(found[1], f"{name} must be greater than 0")
            if value > top:
                raise ShapeError(found[1], f"{name} must not exceed {top}")
            if name == vendor.resources.cores and value > 1 and value % 2:
                raise ShapeError(found[1], f"{name} must be 1 or a multiple of 2, got {value}")
    return Shaped()


def ask(container: Container, notes: Notes, vendor: Vendor) -> Need | None:
    """Devices, or so many cores: of one device or of several, its node says."""
    names = vendor.resources
    count = integer(container, names.count, low=1, high=INT32_MAX)
    cores = integer(container, names.cores, low=1, high=INT32_MAX)
    if cores is not None and cores > 1 and cores % 2:
        raise RequestError(f"{container.path}.resources.limits[{names.cores}]", "1 or an even number", cores)
    if count is not None:
        return Need(vendor=vendor.name, count=count, memory=Mib(0), cores=0, leaves=IN_USE | WHOLE, no_qos=WHOLE)
    if cores is None:
        return None
    return Need(vendor=vendor.name, count=1, memory=Mib(0), cores=cores, leaves=IN_USE | BY_CORE, no_qos=WHOLE)


def asked(need: Need) -> str:
    """For people: cores, or devices."""
    amount, unit = (need.cores, "core") if need.cores else (need.count, "device")
    return f"{amount} {unit}{'s' * (amount > 1)}"


def measure(need: Need, mode: str) -> Need | None:
    """Several devices are taken whole, and only while nobody uses them."""
    each = int(mode)
    count, left = divmod(need.cores, each) if need.cores else (need.count, 0)
    if left and count:
        return None
    return replace(need, count=max(1, count), cores=left or each, no_class=IN_USE if count > 1 else 0)


def stand(device: Device, shares: Sequence[Share]) -> tuple[int, int]:
    """The marks on a device."""
    marks = 0
    for share in shares:
        marks |= share.leaves
    return marks & (IN_USE | WHOLE), 0


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """Neighbours: on a ring wherever they are, else aligned blocks of 1, 4, 8 or 16. What is left stays together."""
    want, size, passing = wanted.need.count, len(spots), set(order)
    if want == 1:
        return Chosen(places=(order[0],))
    ring = "inf" in str(spots[0].facts.get(KIND)).lower()
    if not ring and want not in (4, 8, 16):
        return None
    starts = range(size) if ring and want < size else range(0, size - want + 1, 1 if ring else want)
    windows = [[(start + i) % size for i in range(want)] for start in starts]
    fitting = [window for window in windows if passing.issuperset(window)]
    cost = _ring_cost if ring else _block_cost
    best = min(fitting, key=lambda window: cost(spots, window), default=None)
    return None if best is None else Chosen(places=tuple(best))


def _ring_cost(spots: Sequence[Spot], window: Sequence[int]) -> tuple[int, bool, bool, int]:
    """The free run around it, the smallest first; whether it lies within; whether it goes over the end; its start."""
    before, after = _free(spots, window[0], -1), _free(spots, window[-1], 1)
    whole = before + after + len(window) >= len(spots)
    wraps = window[-1] < window[0]
    return min(len(spots), before + after + len(window)), bool(before and after) and not whole, wraps, window[0]


def _free(spots: Sequence[Spot], place: int, step: int) -> int:
    """Idle devices beside a place, in one direction round the ring."""
    count = 0
    while count < len(spots) and spots[(place + step * (count + 1)) % len(spots)].idle:
        count += 1
    return count


def _block_cost(spots: Sequence[Spot], window: Sequence[int]) -> tuple[int, int]:
    """How many larger blocks around it are whole and would be broken; its start."""
    broken = 0
    for size in (8, 16):
        first = window[0] // size * size
        around = spots[first : first + size]
        broken += size > len(window) and len(around) == size and all(spot.idle for spot in around)
    return broken, window[0]


def settle(
    segments: Segments,
    roles: Sequence[Role],
    devices: Mapping[DeviceUuid, Device],
    on: Mapping[DeviceUuid, Sequence[Share]],
) -> Segments:
    """Which cores each share gets: the lowest that are free."""
    taken: dict[DeviceUuid, int] = {}
    for uuid, shares in on.items():
        for share in shares:
            taken[uuid] = taken.get(uuid, 0) | share.units
    found = []
    for segment, role in zip(segments, roles, strict=True):
        own = []
        for share in segment:
            free = [i for i in range(devices[share.uuid].cores) if not taken.get(share.uuid, 0) >> i & 1]
            own.append(replace(share, units=sum(1 << i for i in free[: share.cores])))
        # An init container has ended when the others start.
        for share in own if role is not Role.INIT else ():
            taken[share.uuid] = taken.get(share.uuid, 0) | share.units
        found.append(tuple(own))
    return tuple(found)


def recall(segments: Segments, notes: Notes, vendor: Vendor) -> Segments:
    """The text's number is a mask of cores. One of all cores known then, and no word of cores, means a whole device."""
    by_core = BY_CORE if notes.get(BY) else 0

    def full(share: Share) -> Share:
        mask = share.cores & (1 << MOST_CORES) - 1
        given_whole = WHOLE if not by_core and mask > 1 and not mask & mask + 1 else 0
        return replace(share, cores=mask.bit_count(), units=mask, leaves=IN_USE | by_core | given_whole)

    return tuple(tuple(full(share) for share in segment) for segment in segments)


def reasons(counts: Mapping[Why, int]) -> Mapping[Why, int]:
    """Several devices that do not lie together are one refusal; a device given away whole has no cores left."""
    found = dict(counts)
    if not found.keys().isdisjoint((Why.CLASS_MISMATCH, Why.NUMA_NOT_FIT, Why.TOO_FEW_PICKED)):
        return {Why.NUMA_NOT_FIT: 1}
    whole = found.pop(Why.QOS_MISMATCH, 0)
    return found | {Why.NO_CORES: found.get(Why.NO_CORES, 0) + whole} if whole else found


def tell(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """Numbers of devices, or of cores if any container asked for cores."""
    shares = [share for segment in outcome.segments for share in segment]
    by_core = any(share.leaves & BY_CORE for share in shares)
    ids: list[int] = []
    for share in shares:
        device = outcome.devices[share.uuid]
        cores = (device.index * device.cores + i for i in range(device.cores) if share.units >> i & 1)
        ids += cores if by_core else [device.index]
    told = {
        IDS: ",".join(map(str, ids)),
        "NEURON_ALLOC_TIME": str(outcome.now_unix * 10**9),
        "NEURON_ALLOCATED": "false",
        NODE: str(outcome.node),
    }
    return told | ({BY: vendor.resources.cores} if by_core else {})


NEURON: Final = Vendor(
    name=VendorWord("AWSNeuron"),
    config_section="awsneuron",
    resources=Resources(
        count="aws.amazon.com/neuron",
        cores="aws.amazon.com/neuroncore",
        also=("aws.amazon.com/neuron", "aws.amazon.com/neuroncore"),
    ),
    node_key="",
    pending_key="",
    done_key="hami.io/aws-neuron-devices-allocated",
    select=SelectKeys(uuid_in="aws.amazon.com/use-neuron-uuid", uuid_out="aws.amazon.com/nouse-neuron-uuid"),
    rules=Rule.SHARED | Rule.CORES_AS_ASKED | Rule.CORES_IN_UNITS,
    lock_key="",
    default_count=0,
    read=read,
    shape=check,
    ask=ask,
    measure=measure,
    choose=choose,
    stand=stand,
    settle=settle,
    recall=recall,
    reasons=reasons,
    dress=tell,
    terms=Terms(apart="with fewer free neighbouring devices than asked", asked=asked),
    dress_keys=(IDS, BY, "NEURON_ALLOC_TIME", "NEURON_ALLOCATED", NODE),
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(NEURON, section, {"count": "resourceCountName", "cores": "resourceCoreName"}),)
