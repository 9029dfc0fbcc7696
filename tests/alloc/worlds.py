"""Small random clusters and requests, drawn from any `random.Random`, so that a seed or hypothesis can drive them.

Amounts come from few round numbers: ties, exact fits and one too much are then frequent.
"""

from dataclasses import replace
from random import Random

from hami.model.claim import (
    ContainerNeed,
    Mib,
    Need,
    Percent,
    PodRecord,
    PodRequest,
    Role,
    Segments,
    Selection,
    Share,
)
from hami.model.device import Device, Links, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord
from hami.model.vendor import Registry, Resources, Rule, Vendor

NVIDIA = VendorWord("NVIDIA")
OTHER = VendorWord("OTHER")
LONER = VendorWord("LONER")
STRANGE = VendorWord("STRANGE")
"""A family that no registry here knows."""


def vendor(name: VendorWord, rules: Rule) -> Vendor:
    return Vendor(
        name=name,
        config_section=name.lower(),
        resources=Resources(count=f"{name}/count", memory=f"{name}/memory", cores=f"{name}/cores"),
        node_key=f"{name}/node",
        pending_key=f"{name}/pending",
        done_key=f"{name}/done",
        rules=rules,
    )


REGISTRY = Registry(
    (
        vendor(NVIDIA, Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE),
        vendor(OTHER, Rule.SHARED),
        vendor(LONER, Rule.NONE),
    )
)

CARD_POLICIES = (
    "spread", "binpack", "mutex", "numa", "topology-aware", "topology-aware", "", "foo", " binpack ", "binpack,numa",
    "numa,binpack", "spread,numa", "numa, spread", "mutex,binpack", "foo,bar", "binpack,spread", "mutex,",
    "binpack,topology-aware",
)  # fmt: skip
NODE_POLICIES = ("binpack", "spread", " spread ", "foo")
MODELS = ("NVIDIA A100-SXM4", "NVIDIA A10", "NVIDIA Tesla T4", "NVIDIA", "Other X")
MEMORY = (1000, 2000, 3000, 4000)


def device(rng: Random, uuid: str, index: int) -> Device:
    return Device(
        uuid=DeviceUuid(uuid),
        index=index,
        slots=rng.choice((0, 1, 2, 2, 4, 10)),
        memory_mib=rng.choice((0, 1000, 4000, 4000, 4000, 8000)),
        cores=rng.choice((0, 50, 100, 100, 100, 100, 150)),
        model=rng.choice(MODELS),
        numa=rng.choice((0, 0, 1, 1, 2)),
        mode=rng.choice(("hami-core",) * 8 + ("mig", "mps")),
        healthy=rng.random() < 0.9,
    )


def links(rng: Random, devices: list[Device]) -> Links | None:
    """Pair scores with gaps, ties, and now and then one-sided ones."""
    if rng.random() < 0.4:
        return None
    scores: dict[DeviceUuid, dict[DeviceUuid, int]] = {d.uuid: {} for d in devices}
    for one in devices:
        for other in devices:
            if one.uuid < other.uuid and rng.random() < 0.9:
                score = rng.choice((0, 10, 100, 100, 200))
                scores[one.uuid][other.uuid] = score
                scores[other.uuid][one.uuid] = score if rng.random() < 0.95 else 0
    return Links(scores=tuple((uuid, tuple(row.items())) for uuid, row in scores.items()))


def node(rng: Random, name: str) -> NodeRecord:
    inventories = []
    for family in (NVIDIA, OTHER, LONER, STRANGE):
        if rng.random() < (0.95 if family == NVIDIA else 0.15):
            first = rng.choice((0, 0, 3))
            devices = [device(rng, f"{name}-{family}-{i}", first + i) for i in range(rng.randint(1, 4))]
            if rng.random() < 0.5:
                # Uniform nodes are the usual case, and full of ties.
                devices = [replace(devices[0], uuid=d.uuid, index=d.index, numa=d.numa) for d in devices]
            inventories.append(NodeInventory(vendor=family, devices=tuple(devices), links=links(rng, devices)))
    every = [d.uuid for inventory in inventories for d in inventory.devices]
    return NodeRecord(
        name=NodeName(name),
        inventories=tuple(inventories),
        cordoned=frozenset(uuid for uuid in every if rng.random() < 0.05),
    )


def roles(rng: Random, most: int) -> tuple[Role, ...]:
    inits = [rng.choice((Role.INIT, Role.INIT, Role.SIDECAR)) for _ in range(rng.choice((0, 0, 0, 1, 1, 2)))]
    return (*inits, *[Role.APP] * rng.randint(1, most))


def record(rng: Random, uid: str, nodes: list[NodeRecord]) -> PodRecord:
    """A pod that holds something on one of the nodes, or on one nobody knows, fitting or not."""
    at = rng.choice([*nodes, *nodes, *nodes, NodeRecord(name=NodeName("gone"), inventories=())])
    these = roles(rng, 2)
    segments: dict[VendorWord, Segments] = {}
    for inventory in at.inventories or (NodeInventory(vendor=NVIDIA, devices=(device(rng, "stray", 0),)),):
        uuids = [*[d.uuid for d in inventory.devices], *[d.uuid for d in inventory.devices], DeviceUuid("stray")]
        segments[inventory.vendor] = tuple(
            tuple(
                Share(
                    uuid=rng.choice(uuids),
                    kind=inventory.vendor,
                    memory_mib=rng.choice((0, 500, *MEMORY)),
                    cores=rng.choice((0, 0, 10, 30, 50, 100)),
                )
                for _ in range(rng.choice((0, 1, 1, 2)))
            )
            for _ in these
        )
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey(rng.choice(("a", "b")), uid),
        node=at.name,
        roles=these,
        segments=segments,
        inits_done=rng.random() < 0.3,
        deleting=rng.random() < 0.1,
    )


def need(rng: Random, family: VendorWord) -> Need:
    return Need(
        vendor=family,
        count=rng.choice((1, 1, 1, 2, 2, 3, 5)),
        memory=Percent(rng.choice((1, 25, 33, 50, 100, 100)))
        if rng.random() < 0.4
        else Mib(rng.choice((*MEMORY, *MEMORY, 0))),
        cores=rng.choice((0, 0, 10, 30, 50, 100)),
    )


def selection(rng: Random, nodes: list[NodeRecord]) -> Selection:
    if rng.random() < 0.5:
        return Selection(numa_bind=rng.random() < 0.2)
    uuids = [d.uuid for known in nodes for inventory in known.inventories for d in inventory.devices] or [
        DeviceUuid("none")
    ]

    def some(chance: float) -> frozenset[DeviceUuid]:
        return frozenset(rng.choice(uuids) for _ in range(rng.randint(1, 5))) if rng.random() < chance else frozenset()

    return Selection(
        type_in=("a100", "T4") if rng.random() < 0.2 else (),
        type_out=("A10",) if rng.random() < 0.2 else (),
        uuid_in=some(0.3),
        uuid_out=some(0.2),
        mode=rng.choice((None, None, "hami-core", "mig", "hami-core,mps")),
        numa_bind=rng.random() < 0.2,
        link_bind=rng.random() < 0.1,
    )


def request(rng: Random, uid: str, nodes: list[NodeRecord]) -> PodRequest:
    containers = []
    for i, role in enumerate(roles(rng, 3)):
        families = [NVIDIA] if rng.random() < 0.85 else rng.sample((NVIDIA, OTHER, LONER), rng.randint(0, 2))
        containers.append(ContainerNeed(name=f"c{i}", role=role, needs=tuple(need(rng, f) for f in families)))
    if rng.random() < 0.4:
        containers = containers[-1:]
    return PodRequest(
        uid=PodUid(uid),
        key=PodKey(rng.choice(("a", "b")), uid),
        containers=tuple(containers),
        selections={family: selection(rng, nodes) for family in (NVIDIA, OTHER, LONER) if rng.random() < 0.6},
        node_policy=rng.choice((None, *NODE_POLICIES)),
        card_policy=rng.choice((None, *CARD_POLICIES)),
        weights=rng.choice(((1, 1, 1), (1, 1, 1), (0, 0, 1), (1, 0, 5))),
    )
