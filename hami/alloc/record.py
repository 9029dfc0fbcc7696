"""What nodes offer and pods hold, read from the API's objects; and what a binding writes on a pod.

The ledger trusts exactly what these readers return, so they decide whom to believe. A pod's allocation counts where
`hami.io/vgpu-node` names the node that it is bound to: a pod's author can write the annotation, but only the scheduler
binds. Each family is read apart, so one family's broken text never hides what another holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from hami.alloc import host, mig, topology
from hami.alloc import request as asking
from hami.alloc.request import Container, RequestError
from hami.alloc.slices import aligned
from hami.model.claim import Assignment, MigReservation, PodRecord, PodRequest, Role, Segments
from hami.model.device import MIG, Links, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, VendorWord, WireError
from hami.model.quantity import parse_quantity
from hami.model.registration import registered
from hami.model.vendor import NodeFacts, Outcome, Registry, Rule, Vendor
from hami.model.wire import mig as mig_wire
from hami.model.wire import node as node_wire
from hami.model.wire import pod as keys

Problems = tuple[WireError, ...]

FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases in which a pod's containers have ended for good: it holds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHold:
    """What a scheduler that writes before it binds has decided for a pod that is not bound yet."""

    record: PodRecord
    decided: int
    """Unix seconds by that scheduler's clock; 0 = it did not say."""


def read_node(node: Mapping[str, Any], registry: Registry) -> tuple[NodeRecord, Problems]:
    """A node's devices by family. A family whose inventory cannot be read is left out and told as a problem.

    A node that reports allocatable resources must offer some of the family's: a registered inventory outlives its
    plug-in, and the kubelet would refuse the pod. Descriptions without `status.allocatable` are taken at their word.
    """
    meta = _metadata(node)
    notes = _texts(meta.get("annotations"))
    problems: list[WireError] = []
    status = node.get("status")
    offered = status.get("capacity") if isinstance(status, Mapping) else None
    facts = NodeFacts(
        name=NodeName(str(meta.get("name") or "")),
        annotations=notes,
        labels=_texts(meta.get("labels")),
        capacity=offered if isinstance(offered, Mapping) else {},
    )
    inventories = [
        inventory for vendor in registry if (inventory := _read_inventory(node, facts, vendor, problems)) is not None
    ]
    own_agent: frozenset[VendorWord] = frozenset()
    if keys.AGENT_PROTOCOL in notes:
        try:
            own_agent = node_wire.read_agent_protocol(notes[keys.AGENT_PROTOCOL]).families
        except WireError as error:
            problems.append(error)
    record = NodeRecord(
        name=facts.name,
        inventories=tuple(inventories),
        cordoned=node_wire.read_cordon(notes.get(keys.CORDON, "")),
        own_agent=own_agent,
        host=host.offered(node),
    )
    return record, tuple(problems)


def read_pod(pod: Mapping[str, Any], registry: Registry) -> tuple[PodRecord | None, Problems]:
    """What a bound pod holds, or None: not bound, ended, refused by its node, or nothing allocated.

    An allocation for another node than the pod is bound to is a problem and counts nowhere: on its own node it would
    block devices it does not use, and on the other one it does not run.
    """
    node = _bound_node(pod)
    if node is None or _phase(pod) in FINISHED:
        return None, ()
    notes = _texts(_metadata(pod).get("annotations"))
    done = [vendor for vendor in registry if notes.get(vendor.done_key)]
    # A pod whose node refused it (`failed`) runs nothing; the node's agent says `success` when it starts after all.
    if not done or notes.get(keys.BIND_PHASE) == keys.FAILED:
        return None, ()
    if notes.get(keys.NODE) != node:
        return None, (WireError(f"metadata.annotations[{keys.NODE}]", f"the pod's node {node}", notes.get(keys.NODE)),)
    return _read_record(pod, NodeName(node), notes, done)


def read_foreign_hold(pod: Mapping[str, Any], registry: Registry) -> tuple[ForeignHold | None, Problems]:
    """What another HAMi scheduler has written on a pod that it has yet to bind; None for every other pod."""
    if _bound_node(pod) is not None or _phase(pod) in FINISHED:
        return None, ()
    notes = _texts(_metadata(pod).get("annotations"))
    node = notes.get(keys.NODE)
    done = [vendor for vendor in registry if notes.get(vendor.done_key)]
    if not node or not done:
        return None, ()
    record, problems = _read_record(pod, NodeName(node), notes, done)
    if record is None:
        return None, problems
    decided = 0
    if keys.TIME in notes:
        try:
            decided = keys.read_unix(notes[keys.TIME], f"metadata.annotations[{keys.TIME}]")
        except WireError as error:
            problems = (*problems, error)
    return ForeignHold(record=record, decided=decided), problems


def annotations(
    assignment: Assignment,
    registry: Registry,
    *,
    now_unix: int,
    own_agent: frozenset[VendorWord] = frozenset(),
    request: PodRequest | None = None,
    node: NodeRecord | None = None,
) -> dict[str, str]:
    """What a binding carries: the allocation by family, the node, the times, the phase, and what plug-ins are told.

    Families of our own agent get no pending key: only a foreign plug-in consumes it, and would serve it to the wrong
    container if it ever took the node over. `request` and `node` are what was decided on; families without marks of
    their own need neither.
    """
    written = {
        keys.NODE: str(assignment.node),
        keys.TIME: str(now_unix),
        keys.BIND_TIME: str(now_unix),
        keys.BIND_PHASE: keys.ALLOCATING,
    }
    for name, segments in assignment.segments.items():
        vendor = registry[name]
        text = keys.write_segments(segments)
        written[vendor.done_key] = text
        if vendor.pending_key and name not in own_agent:
            written[vendor.pending_key] = text
        if vendor.dress is not None and request is not None and node is not None:
            written |= vendor.dress(_outcome(name, segments, request, node, now_unix), vendor)
    if assignment.reservations:
        written[keys.NVIDIA_MIG] = mig_wire.write_reservations(assignment.reservations)
    return written


def labels(assignment: Assignment) -> dict[str, str]:
    """The label that names the node, as HAMi's monitor selects by it; none when the name is too long for a label."""
    return {keys.NODE: str(assignment.node)} if len(assignment.node) <= keys.MAX_LABEL else {}


def stale_keys(pod: Mapping[str, Any], written: Mapping[str, str], registry: Registry) -> tuple[str, ...]:
    """Allocation keys of an earlier attempt that `written` would leave standing: a binding can only add."""
    notes = _texts(_metadata(pod).get("annotations"))
    candidates = {keys.NVIDIA_MIG, *(key for vendor in registry for key in vendor.written_keys())}
    return tuple(sorted((candidates & notes.keys()) - written.keys()))


def _outcome(family: VendorWord, segments: Segments, request: PodRequest, node: NodeRecord, now_unix: int) -> Outcome:
    listed = next((inventory.devices for inventory in node.inventories if inventory.vendor == family), ())
    return Outcome(
        node=node.name,
        segments=segments,
        containers=tuple(container.name for container in request.containers),
        devices={device.uuid: device for device in listed},
        notes=request.notes,
        now_unix=now_unix,
    )


def _read_inventory(
    node: Mapping[str, Any], facts: NodeFacts, vendor: Vendor, problems: list[WireError]
) -> NodeInventory | None:
    notes = facts.annotations
    try:
        devices = (vendor.read or registered)(facts, vendor, problems)
    except WireError as error:
        problems.append(error)
        return None
    # With every card unhealthy nothing is allocatable either; then the cards tell people the better reason.
    if not devices or (not _is_served(node, vendor) and any(device.healthy for device in devices)):
        return None
    links: Links | None = None
    if vendor.link_key and vendor.link_key in notes:
        # Unreadable scores are no scores; the devices are still there.
        field = f"metadata.annotations[{vendor.link_key}]"
        try:
            links = node_wire.read_links(notes[vendor.link_key], field)
        except WireError as error:
            problems.append(error)
        else:
            problems += [] if (uneven := topology.check_links(links, field)) is None else [uneven]
    # Cards of one model offer the same profiles: what is wrong with them is told once.
    for profiles, device in {device.mig_profiles: device for device in devices[::-1] if device.mode == MIG}.items():
        problems += mig.check_profiles(profiles, f"metadata.annotations[{vendor.node_key}][{device.uuid}].migProfiles")
    return NodeInventory(vendor=vendor.name, devices=devices, links=links)


def _is_served(node: Mapping[str, Any], vendor: Vendor) -> bool:
    status = node.get("status")
    allocatable = status.get("allocatable") if isinstance(status, Mapping) else None
    if not isinstance(allocatable, Mapping):
        return True
    try:
        return parse_quantity(allocatable.get(vendor.resources.count, "0"), "status.allocatable") > 0
    except WireError:
        return False


def _read_record(
    pod: Mapping[str, Any], node: NodeName, notes: Mapping[str, str], done: list[Vendor]
) -> tuple[PodRecord | None, Problems]:
    try:
        found = tuple(asking.containers(pod))
    except RequestError as error:
        return None, (error,)
    problems: list[WireError] = []
    roles = tuple(container.role for container in found)
    segments: dict[VendorWord, Segments] = {}
    reservations: tuple[MigReservation, ...] = ()
    old_instances: frozenset[DeviceUuid] = frozenset()
    for vendor in done:
        text = notes[vendor.done_key]
        asked = [_count(container, vendor, notes) for container in found]
        decoded = keys.read_segments(
            text,
            f"metadata.annotations[{vendor.done_key}]",
            asked=asked if any(asked) and vendor.measure is None else _as_written(text, len(roles)),
            roles=roles,
        )
        problems += decoded.problems
        if any(decoded.segments):
            shares = _physical(decoded.segments)
            segments[vendor.name] = shares if vendor.recall is None else vendor.recall(shares, notes, vendor)
        if Rule.MIG in vendor.rules:
            old_instances |= _old_instances(decoded.segments)
            reservations = _read_reservations(notes, _physical(decoded.segments), problems)
    if not segments:
        return None, tuple(problems)
    record = PodRecord(
        uid=asking.pod_uid(pod),
        key=asking.pod_key(pod),
        node=node,
        roles=roles,
        segments=segments,
        reservations=reservations,
        old_instances=old_instances,
        inits_done=_inits_done(pod, found),
        deleting=_metadata(pod).get("deletionTimestamp") is not None,
        movable=notes.get(keys.ALLOW_MOVE) == "true",
        host=host.asked(pod),
    )
    return record, tuple(problems)


def _count(container: Container, vendor: Vendor, notes: Mapping[str, str]) -> int:
    try:
        need = asking.read_need(container, vendor, notes)
    except RequestError:
        # What runs is what was allocated; a request that is unusable today says nothing about it.
        return 0
    return 0 if need is None else need.count


def _as_written(text: str, containers: int) -> list[int]:
    """Counts by position for a pod that asks for nothing under today's resource names, which may have been renamed, or
    of whose request only its node knows how many devices it means.

    Only a text with one segment a container can be taken by position; otherwise nothing is known.
    """
    pieces = text.removesuffix(";").split(";")
    if len(pieces) != containers:
        return [0] * containers
    return [sum(1 for card in piece.split(":") if card and not card.startswith(",")) for piece in pieces]


def _physical(segments: Segments) -> Segments:
    """Shares by card. Releases up to 2.9 named a MIG instance `GPU-x[template-slot]`: the card is what is used."""
    return tuple(
        tuple(replace(share, uuid=DeviceUuid(share.uuid.partition("[")[0])) for share in segment)
        if any("[" in share.uuid for share in segment)
        else segment
        for segment in segments
    )


def _old_instances(segments: Segments) -> frozenset[DeviceUuid]:
    found = (mig_wire.read_old_instance(share.uuid) for segment in segments for share in segment)
    return frozenset(instance.uuid for instance in found if instance is not None)


def _read_reservations(
    notes: Mapping[str, str], segments: Segments, problems: list[WireError]
) -> tuple[MigReservation, ...]:
    """What the pod holds of MIG cards. Unreadable: nothing, and the ledger then finds shares without reservation."""
    try:
        found = mig_wire.read_reservations(notes.get(keys.NVIDIA_MIG, ""), f"metadata.annotations[{keys.NVIDIA_MIG}]")
    except WireError as error:
        problems.append(error)
        return ()
    return aligned(found, segments)


def _inits_done(pod: Mapping[str, Any], found: tuple[Container, ...]) -> bool:
    status = pod.get("status")
    listed = status.get("initContainerStatuses") if isinstance(status, Mapping) else None
    ended = {
        entry.get("name")
        for entry in listed or ()
        if isinstance(entry, Mapping) and _exit_code(entry.get("state")) == 0
    }
    return all(container.name in ended for container in found if container.role is Role.INIT)


def _exit_code(state: object) -> object:
    terminated = state.get("terminated") if isinstance(state, Mapping) else None
    return terminated.get("exitCode") if isinstance(terminated, Mapping) else None


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    value = document.get("metadata")
    return value if isinstance(value, Mapping) else {}


def _bound_node(pod: Mapping[str, Any]) -> str | None:
    spec = pod.get("spec")
    node = spec.get("nodeName") if isinstance(spec, Mapping) else None
    return node if isinstance(node, str) and node else None


def _phase(pod: Mapping[str, Any]) -> str | None:
    status = pod.get("status")
    phase = status.get("phase") if isinstance(status, Mapping) else None
    return phase if isinstance(phase, str) else None


def _texts(value: object) -> Mapping[str, str]:
    """Annotations as texts; anything else in their place says nothing."""
    if not isinstance(value, Mapping):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
