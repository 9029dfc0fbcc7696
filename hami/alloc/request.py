"""What a pod asks for: its spec and annotations as one `PodRequest`.

The same reading serves admission, placement and the records of bound pods, so a value means the same in all three.
A container asks for a family when it names the family's count; then every value beside it must be usable, because a
request that is dropped in part would run without its limits. The reader is fed raw API documents: whatever is not
shaped like a pod is a `RequestError` that names the place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hami.alloc import host
from hami.model.claim import ContainerNeed, Memory, Mib, Need, Percent, PodRequest, Role, Selection
from hami.model.container import Container as Container
from hami.model.container import RequestError as RequestError
from hami.model.container import amount as amount
from hami.model.container import environment as environment
from hami.model.container import integer, mapping_at
from hami.model.container import section as section
from hami.model.names import INT32_MAX, DeviceUuid, PodKey, PodUid, WireError
from hami.model.quantity import whole
from hami.model.vendor import Registry, Rule, SelectKeys, Vendor
from hami.model.wire import pod as keys

POLICIES: Final = frozenset({"binpack", "spread", "fragmentation"})
"""Words of the node policy; other words act as `binpack`."""
CARD_POLICIES: Final = POLICIES | {"mutex", "numa", "topology-aware"}
"""Words of the card policy, alone or in a comma list; other words act as `spread`."""

_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_MUSTS: Final = frozenset({"numa", "link"})
_MATCHES_NOTHING: Final = "\0"
"""Stands in an allow list that was written but names nothing (`,`): no model or UUID contains it."""
_WEIGHTS: Final = ("slot", "core", "memory")


class WeightsError(RequestError):
    """The score weights cannot be read: the request itself may be fine, but no node can be ranked."""


def read_request(pod: Mapping[str, Any], registry: Registry) -> PodRequest:
    """The request of a pod; `vendors` is empty when it asks for no device of any family.

    Raises `RequestError` when a container that asks for devices has a value no node can serve, and `WeightsError` when
    only the score weights are unusable.
    """
    found = tuple(containers(pod))
    notes = annotations(pod)
    needs = tuple(
        ContainerNeed(
            name=container.name,
            role=container.role,
            needs=tuple(
                need for vendor in _named(container, registry) if (need := read_need(container, vendor, notes))
            ),
        )
        for container in found
    )
    asked = {need.vendor for container in needs for need in container.needs}
    check_together(found, needs, registry)
    key = pod_key(pod)
    return PodRequest(
        uid=pod_uid(pod),
        key=key,
        containers=needs,
        selections={vendor.name: read_selection(notes, vendor.select) for vendor in registry if vendor.name in asked},
        node_policy=_word(notes, keys.NODE_POLICY),
        card_policy=_word(notes, keys.CARD_POLICY),
        weights=read_weights(notes) if asked else (1, 1, 1),
        host=host.asked(pod),
        notes=notes if asked else {},
    )


def check_together(found: Sequence[Container], needs: Sequence[ContainerNeed], registry: Registry) -> None:
    """Raises `RequestError` where containers of a pod may not ask beside each other; families say what."""
    for vendor in registry:
        if vendor.together is not None:
            own = [
                (container, need)
                for container, asking in zip(found, needs, strict=True)
                for need in asking.needs
                if need.vendor == vendor.name
            ]
            if len(own) > 1:
                vendor.together(own, vendor)


def _named(container: Container, registry: Registry) -> Iterator[Vendor]:
    """The families whose resources a container names: of some twenty, mostly none or one."""
    named = {*section(container, "limits"), *section(container, "requests")}
    for vendor in registry:
        if (
            vendor.resources.count in named
            or not named.isdisjoint(vendor.resources.also)
            or (Rule.COUNT_IMPLIED in vendor.rules and not named.isdisjoint(vendor.resources.names()))
        ):
            yield vendor


def _names_part(container: Container, vendor: Vendor, kinds: tuple[str, ...]) -> bool:
    """Whether a container names memory or cores of a family."""
    names = vendor.resources
    return any(amount(container, name, kinds) is not None for name in (names.memory, names.cores))


def containers(pod: Mapping[str, Any]) -> Iterator[Container]:
    """The containers that may hold devices: init containers, then app containers, in spec order."""
    spec = mapping_at(pod, "spec", "spec")
    for list_key in ("initContainers", "containers"):
        listed = spec.get(list_key) or ()
        if not isinstance(listed, list | tuple):
            raise RequestError(f"spec.{list_key}", "a list of containers", listed)
        for i, document in enumerate(listed):
            path = f"spec.{list_key}[{i}]"
            if not isinstance(document, Mapping):
                raise RequestError(path, "a container", document)
            name = document.get("name", "")
            if not isinstance(name, str):
                raise RequestError(f"{path}.name", "a text", name)
            role = Role.APP
            if list_key == "initContainers":
                role = Role.SIDECAR if document.get("restartPolicy") == "Always" else Role.INIT
            yield Container(path=path, pointer=f"/spec/{list_key}/{i}", role=role, name=name, document=document)


def read_need(container: Container, vendor: Vendor, notes: Mapping[str, str]) -> Need | None:
    """What a container asks of a family, or None when it does not name the family's count."""
    if vendor.ask is not None:
        return vendor.ask(container, notes, vendor)
    names, kinds = vendor.resources, _kinds(vendor)
    count = integer(container, names.count, low=1, high=INT32_MAX, kinds=kinds)
    if count is None and Rule.COUNT_IMPLIED in vendor.rules and _names_part(container, vendor, kinds):
        count = max(1, vendor.default_count)
    if count is None:
        return None
    cores = integer(container, names.cores, low=0, kinds=kinds)
    asked = vendor.default_cores if cores is None else cores
    need = Need(
        vendor=vendor.name,
        count=count,
        memory=_memory(container, vendor),
        # More than all of a device is all of it.
        cores=asked if Rule.CORES_IN_UNITS in vendor.rules else min(100, asked),
    )
    return need if vendor.refine is None else vendor.refine(need, container, notes, vendor)


def read_selection(notes: Mapping[str, str], select: SelectKeys) -> Selection:
    """Which devices of a family a pod accepts, by its annotations."""
    musts = read_musts(notes)
    return Selection(
        type_in=_listed(notes, select.type_in, allow=True),
        type_out=_listed(notes, select.type_out, allow=False),
        uuid_in=_allowed(notes, select),
        uuid_out=frozenset(
            DeviceUuid(uuid) for key in (select.uuid_out, select.also_out) for uuid in _listed(notes, key, allow=False)
        ),
        mode=_mode(notes, select),
        numa_bind="numa" in musts or (bool(select.numa_bind) and notes.get(select.numa_bind) in _TRUE),
        link_bind="link" in musts,
    )


def read_musts(notes: Mapping[str, str]) -> frozenset[str]:
    """What of the devices' topology is a must: `numa`, `link` or both. A word nobody knows cannot be guaranteed."""
    text = notes.get(keys.TOPOLOGY_REQUIRE, "")
    words = frozenset(word for piece in text.split(",") if (word := piece.strip()))
    if words - _MUSTS:
        raise RequestError(f"metadata.annotations[{keys.TOPOLOGY_REQUIRE}]", "numa, link or numa,link", text)
    return words


def read_weights(notes: Mapping[str, str]) -> tuple[int, int, int]:
    """Card score weights (slot, core, memory): `slot=1,core=1,memory=3`, each once, not all 0."""
    text = notes.get(keys.SCORE_WEIGHTS)
    if text is None:
        return 1, 1, 1
    field = f"metadata.annotations[{keys.SCORE_WEIGHTS}]"
    found: dict[str, int] = {}
    for part in text.split(",") if len(text) <= 256 else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in _WEIGHTS:
            raise WeightsError(field, "slot=N,core=N,memory=N", text)
        if name in found:
            raise WeightsError(field, f"one {name} weight", text)
        if not (value.isascii() and value.isdigit()) or int(value) > INT32_MAX:
            raise WeightsError(field, f"a whole number from 0 as {name} weight", text)
        found[name] = int(value)
    if len(found) != len(_WEIGHTS):
        raise WeightsError(field, "slot, core and memory weights", text)
    if not any(found.values()):
        raise WeightsError(field, "at least one weight above 0", text)
    return found["slot"], found["core"], found["memory"]


def task_priority(container: Container, vendor: Vendor) -> int:
    """The priority a container runs at: 0 high, 1 low (also when it says nothing usable).

    Read where the library would find it: the last environment variable of the name, which admission appends from the
    priority resource.
    """
    written = [entry.get("value") for entry in environment(container) if entry.get("name") == vendor.env.priority]
    text = written[-1] if written else None
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    if text is None and (asked := amount(container, vendor.resources.priority)) is not None:
        value = whole(asked[0])
        return value if value is not None and 0 <= value <= INT32_MAX else 1
    return 1


def warnings(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """What a pod says that will have no effect, one line each: words that are no policy."""
    notes = annotations(pod)
    told: list[str] = []
    for key, known, used in ((keys.NODE_POLICY, POLICIES, "binpack"), (keys.CARD_POLICY, CARD_POLICIES, "spread")):
        text = notes.get(key, "").strip()
        words = text.split(",") if key == keys.CARD_POLICY else [text]
        for word in (piece.strip() for piece in words):
            if word and word not in known:
                shown = WireError(f"metadata.annotations[{key}]", f"one of {', '.join(sorted(known))}", word)
                told.append(f"{shown}; {'ignored' if len(words) > 1 else f'{used} is used'}")
    return tuple(told[:8])


def annotations(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """The pod's annotations; a value that is no text is a `RequestError`."""
    written = mapping_at(metadata(pod), "annotations", "metadata.annotations")
    for key, value in written.items():
        if not isinstance(value, str):
            raise RequestError(f"metadata.annotations[{key}]", "a text", value)
    return written


def metadata(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata` of any API object."""
    return mapping_at(pod, "metadata", "metadata")


def pod_key(pod: Mapping[str, Any], namespace: str = "default") -> PodKey:
    """Namespace and name; a pod under admission may lack both, then `namespace` and its `generateName`."""
    meta = metadata(pod)
    return PodKey(str(meta.get("namespace") or namespace), str(meta.get("name") or meta.get("generateName") or ""))


def pod_uid(pod: Mapping[str, Any]) -> PodUid:
    """The pod's UID, or its key where an object has none (files, dry runs)."""
    return PodUid(str(metadata(pod).get("uid") or pod_key(pod)))


def _mode(notes: Mapping[str, str], select: SelectKeys) -> str | None:
    text = notes.get(select.mode) if select.mode else None
    return text if not select.mode_words or text in select.mode_words else None


def _kinds(vendor: Vendor) -> tuple[str, ...]:
    return ("limits",) if Rule.LIMITS_ONLY in vendor.rules else ("limits", "requests")


def _memory(container: Container, vendor: Vendor) -> Memory:
    names, kinds = vendor.resources, _kinds(vendor)
    factor = max(1, vendor.memory_factor)
    asked = integer(container, names.memory, low=0, high=INT32_MAX // factor, kinds=kinds)
    # Read even where the amount wins: a value that cannot be meant is refused wherever it stands.
    percentage = integer(container, names.memory_percentage, low=0, kinds=kinds)
    if asked:
        return Mib(asked * factor)
    if percentage:
        return Percent(min(100, percentage))
    return Mib(vendor.default_memory_mib) if vendor.default_memory_mib > 0 else Percent(100)


def _allowed(notes: Mapping[str, str], select: SelectKeys) -> frozenset[DeviceUuid]:
    """The devices that every allow list names; empty = there is no such list."""
    lists = [frozenset(_listed(notes, key, allow=True)) for key in (select.uuid_in, select.also_in)]
    written = [uuids for uuids in lists if uuids]
    both = frozenset.intersection(*written) if written else frozenset[str]()
    return frozenset(map(DeviceUuid, both if both or not written else (_MATCHES_NOTHING,)))


def _listed(notes: Mapping[str, str], key: str, *, allow: bool) -> tuple[str, ...]:
    text = notes.get(key, "").strip() if key else ""
    if not text:
        return ()
    items = tuple(item for piece in text.split(",") if (item := piece.strip()))
    return items or ((_MATCHES_NOTHING,) if allow else ())


def _word(notes: Mapping[str, str], key: str) -> str | None:
    # Blank is absent: an empty annotation does not override the scheduler's flag.
    return notes.get(key, "").strip() or None
