"""What a pod asks for: its spec and annotations as one `PodRequest`.

The same reading serves admission, placement and the records of bound pods, so a value means the same in all three.
A container asks for a family when it names the family's count; then every value beside it must be usable, because a
request that is dropped in part would run without its limits. The reader is fed raw API documents: whatever is not
shaped like a pod is a `RequestError` that names the place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from hami.alloc import host
from hami.model.claim import ContainerNeed, Memory, Mib, Need, Percent, PodRequest, Role, Selection
from hami.model.names import INT32_MAX, DeviceUuid, PodKey, PodUid, WireError
from hami.model.quantity import parse_quantity, whole
from hami.model.vendor import Registry, SelectKeys, Vendor
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


class RequestError(WireError):
    """A pod whose request cannot be served as written, anywhere."""


class WeightsError(RequestError):
    """The score weights cannot be read: the request itself may be fine, but no node can be ranked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of a pod document: where it stands, what it is, and its raw form."""

    path: str
    """`spec.initContainers[0]`, as its author would look for it."""
    pointer: str
    """The same as a JSON pointer."""
    role: Role
    name: str
    document: Mapping[str, Any]


def read_request(pod: Mapping[str, Any], registry: Registry) -> PodRequest:
    """The request of a pod; `vendors` is empty when it asks for no device of any family.

    Raises `RequestError` when a container that asks for devices has a value no node can serve, and `WeightsError` when
    only the score weights are unusable.
    """
    found = tuple(containers(pod))
    needs = tuple(
        ContainerNeed(
            name=container.name,
            role=container.role,
            needs=tuple(need for vendor in registry if (need := read_need(container, vendor)) is not None),
        )
        for container in found
    )
    asked = {need.vendor for container in needs for need in container.needs}
    notes = annotations(pod)
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
    )


def containers(pod: Mapping[str, Any]) -> Iterator[Container]:
    """The containers that may hold devices: init containers, then app containers, in spec order."""
    spec = _mapping(pod, "spec", "spec")
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


def amount(container: Container, resource: str) -> tuple[Fraction, str] | None:
    """A resource's exact amount and the path it stands at: the limit, else the request, else None."""
    for kind in ("limits", "requests"):
        written = section(container, kind)
        if resource and resource in written:
            path = f"{container.path}.resources.{kind}[{resource}]"
            return _exact(written[resource], path), path
    return None


def section(container: Container, kind: str) -> Mapping[str, Any]:
    """`resources.limits` or `resources.requests` of a container; empty when absent."""
    resources = _mapping(container.document, "resources", f"{container.path}.resources")
    return _mapping(resources, kind, f"{container.path}.resources.{kind}")


def read_need(container: Container, vendor: Vendor) -> Need | None:
    """What a container asks of a family, or None when it does not name the family's count."""
    names = vendor.resources
    count = _integer(container, names.count, low=1, high=INT32_MAX)
    if count is None:
        return None
    cores = _integer(container, names.cores, low=0)
    return Need(
        vendor=vendor.name,
        count=count,
        memory=_memory(container, vendor),
        # More than all of a device is all of it.
        cores=min(100, vendor.default_cores if cores is None else cores),
    )


def read_selection(notes: Mapping[str, str], select: SelectKeys) -> Selection:
    """Which devices of a family a pod accepts, by its annotations."""
    musts = read_musts(notes)
    return Selection(
        type_in=_listed(notes, select.type_in, allow=True),
        type_out=_listed(notes, select.type_out, allow=False),
        uuid_in=frozenset(map(DeviceUuid, _listed(notes, select.uuid_in, allow=True))),
        uuid_out=frozenset(map(DeviceUuid, _listed(notes, select.uuid_out, allow=False))),
        mode=notes.get(select.mode) if select.mode else None,
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


def environment(container: Container) -> tuple[Mapping[str, Any], ...]:
    """The container's environment entries as written."""
    entries = container.document.get("env") or ()
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
        raise RequestError(f"{container.path}.env", "a list of variables", entries)
    return tuple(entries)


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
    written = _mapping(metadata(pod), "annotations", "metadata.annotations")
    for key, value in written.items():
        if not isinstance(value, str):
            raise RequestError(f"metadata.annotations[{key}]", "a text", value)
    return written


def metadata(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata` of any API object."""
    return _mapping(pod, "metadata", "metadata")


def pod_key(pod: Mapping[str, Any], namespace: str = "default") -> PodKey:
    """Namespace and name; a pod under admission may lack both, then `namespace` and its `generateName`."""
    meta = metadata(pod)
    return PodKey(str(meta.get("namespace") or namespace), str(meta.get("name") or meta.get("generateName") or ""))


def pod_uid(pod: Mapping[str, Any]) -> PodUid:
    """The pod's UID, or its key where an object has none (files, dry runs)."""
    return PodUid(str(metadata(pod).get("uid") or pod_key(pod)))


def _memory(container: Container, vendor: Vendor) -> Memory:
    names = vendor.resources
    factor = max(1, vendor.memory_factor)
    asked = _integer(container, names.memory, low=0, high=INT32_MAX // factor)
    # Read even where the amount wins: a value that cannot be meant is refused wherever it stands.
    percentage = _integer(container, names.memory_percentage, low=0)
    if asked:
        return Mib(asked * factor)
    if percentage:
        return Percent(min(100, percentage))
    return Mib(vendor.default_memory_mib) if vendor.default_memory_mib > 0 else Percent(100)


def _integer(container: Container, resource: str, *, low: int, high: int | None = None) -> int | None:
    found = amount(container, resource)
    if found is None:
        return None
    exact, path = found
    value = whole(exact)
    if value is None or value < low or (high is not None and value > high):
        upto = "" if high is None else f" to {high}"
        raise RequestError(path, f"a whole number from {low}{upto}", _written(container, resource))
    return value


def _written(container: Container, resource: str) -> object:
    return section(container, "limits").get(resource, section(container, "requests").get(resource))


def _exact(value: object, path: str) -> Fraction:
    try:
        return parse_quantity(value, path)
    except WireError as error:
        raise RequestError(error.field, error.expected, error.got) from error


def _listed(notes: Mapping[str, str], key: str, *, allow: bool) -> tuple[str, ...]:
    text = notes.get(key, "").strip() if key else ""
    if not text:
        return ()
    items = tuple(item for piece in text.split(",") if (item := piece.strip()))
    return items or ((_MATCHES_NOTHING,) if allow else ())


def _word(notes: Mapping[str, str], key: str) -> str | None:
    # Blank is absent: an empty annotation does not override the scheduler's flag.
    return notes.get(key, "").strip() or None


def _mapping(document: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RequestError(path, "an object", value)
    return value
