"""Nodes and pods from YAML or JSON manifests: single objects, several documents, and lists as `kubectl get -o` prints.

Workloads stand for the pods that their controllers would make. Everything else in a file is left alone. Pods carry the
times that the API server wrote: when they were made, and when those that have ended did.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import yaml

from hami.model.names import WireError
from hami.model.quantity import parse_quantity
from hami.simulate.workload import MOST_PODS, Document, Item

MOST_REPLICAS: Final = 100_000

_COUNTS: Final = {
    "Deployment": "replicas",
    "ReplicaSet": "replicas",
    "StatefulSet": "replicas",
    "Job": "parallelism",
}
"""Workloads, and the field of their spec that says how many pods run at a time."""


_ENDED: Final = frozenset({"Succeeded", "Failed"})


def read_nodes(text: str, file: str) -> tuple[Item, ...]:
    """The nodes of a file; WireError when there are none."""
    found = []
    for where, document in _objects(text, file):
        if _kind(document) == "Node":
            offer = _part(_part(document, "status", f"{where}: status"), "allocatable", f"{where}: status.allocatable")
            _check_amounts(offer, f"{where}: status.allocatable")
            found.append(Item(where=where, document=document))
    if not found:
        raise WireError(file, "at least one Node")
    return tuple(found)


def read_pods(text: str, file: str) -> tuple[Item, ...]:
    """The pods of a file, and those of its workloads; WireError when there are none."""
    found: list[Item] = []
    for where, document in _objects(text, file):
        if _kind(document) == "Pod":
            _check_pod(document, where)
            arrives, leaves = _times(document, where)
            finished = _has_ended(document, where)
            found.append(Item(where=where, document=document, arrives=arrives, leaves=leaves, finished=finished))
        elif _kind(document) in _COUNTS:
            found.extend(_pods_of(where, document))
        if len(found) > MOST_PODS:
            raise WireError(where, f"at most {MOST_PODS:,} pods")
    if not found:
        raise WireError(file, "at least one Pod, Deployment, ReplicaSet, StatefulSet or Job")
    return tuple(found)


def _objects(text: str, file: str) -> Iterator[tuple[str, Document]]:
    documents = _documents(text, file)
    for number, document in enumerate(documents):
        where = file if len(documents) == 1 else f"{file}: document {number + 1}"
        if document is None:
            continue
        if not isinstance(document, Mapping):
            raise WireError(where, "an object", document)
        if _kind(document).endswith("List") and isinstance(items := document.get("items"), Sequence):
            for i, item in enumerate(items):
                if not isinstance(item, Mapping):
                    raise WireError(f"{where}: items[{i}]", "an object", item)
                # Items of typed lists carry no kind of their own.
                kind = item.get("kind") or _kind(document).removesuffix("List")
                yield f"{where}: items[{i}]", {**item, "kind": kind}
        else:
            yield where, document


def _documents(text: str, file: str) -> list[Any]:
    if text.lstrip()[:1] == "{":
        # What `kubectl -o json` prints is read many times faster so. Anything else that begins like this may still be
        # YAML, whose reader also tells the place of a mistake.
        try:
            return [orjson.loads(text)]
        except orjson.JSONDecodeError:
            pass
    try:
        return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}: column {mark.column + 1}" if mark else file
        raise WireError(place, f"YAML or JSON ({error.problem})") from error
    except yaml.YAMLError as error:
        raise WireError(file, f"YAML or JSON ({error})") from error
    except RecursionError as error:
        raise WireError(file, "objects that are not nested this deep") from error
    except ValueError as error:
        # The reader turns what looks like a date into one, and some do not exist.
        raise WireError(file, f"YAML or JSON ({error})") from error


def _pods_of(where: str, document: Document) -> Iterator[Item]:
    spec = _part(document, "spec", f"{where}: spec")
    field = _COUNTS[_kind(document)]
    count = spec.get(field, 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_REPLICAS:
        raise WireError(f"{where}: spec.{field}", f"a whole number from 0 to {MOST_REPLICAS}", count)
    template = _part(spec, "template", f"{where}: spec.template")
    _check_pod(template, f"{where}: spec.template")
    owner = _part(document, "metadata", f"{where}: metadata")
    metadata = _part(template, "metadata", f"{where}: spec.template.metadata")
    for i in range(count):
        named: dict[str, Any] = {
            **metadata,
            "name": f"{owner.get('name', '')}-{i}",
            "namespace": owner.get("namespace", "default"),
        }
        yield Item(where=where, document={**template, "kind": "Pod", "metadata": named})


def _check_pod(pod: Document, where: str) -> None:
    """Refuse CPU and memory that the API server would refuse; amounts of devices are the scheduler's to read."""
    spec = _part(pod, "spec", f"{where}: spec")
    for key in ("initContainers", "containers"):
        listed = spec.get(key)
        for i, container in enumerate(listed if isinstance(listed, list) else ()):
            path = f"{where}: spec.{key}[{i}]"
            if not isinstance(container, Mapping):
                raise WireError(path, "an object", container)
            resources = _part(container, "resources", f"{path}.resources")
            for part in ("requests", "limits"):
                _check_amounts(_part(resources, part, f"{path}.resources.{part}"), f"{path}.resources.{part}")


def _check_amounts(amounts: Document, path: str) -> None:
    for name in ("cpu", "memory"):
        if name in amounts and parse_quantity(amounts[name], f"{path}.{name}") < 0:
            raise WireError(f"{path}.{name}", "an amount that is not negative", amounts[name])


def _times(pod: Document, where: str) -> tuple[float | None, float | None]:
    """When a pod was made, and when its last container ended, in seconds; None where it does not say."""
    metadata, status = _part(pod, "metadata", f"{where}: metadata"), _part(pod, "status", f"{where}: status")
    arrives = _time(metadata.get("creationTimestamp"), f"{where}: metadata.creationTimestamp")
    if not _has_ended(pod, where):
        return arrives, None
    ends = []
    listed = status.get("containerStatuses")
    for i, entry in enumerate(listed if isinstance(listed, list) else ()):
        path = f"{where}: status.containerStatuses[{i}]"
        if not isinstance(entry, Mapping):
            raise WireError(path, "an object", entry)
        ended = _part(_part(entry, "state", f"{path}.state"), "terminated", f"{path}.state.terminated")
        ends.append(_time(ended.get("finishedAt"), f"{path}.state.terminated.finishedAt"))
    known = [end for end in ends if end is not None]
    # A pod that ended without a word about when, as an evicted one, held something for no time that is known.
    return arrives, max([*known, arrives] if arrives is not None else known, default=None)


def _has_ended(pod: Document, where: str) -> bool:
    phase = _part(pod, "status", f"{where}: status").get("phase")
    if not isinstance(phase, str | None):
        raise WireError(f"{where}: status.phase", "a word", phase)
    return phase in _ENDED


def _time(value: object, path: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise WireError(path, "a time such as 2026-01-31T12:00:00Z", value) from None
    if not isinstance(value, datetime):
        raise WireError(path, "a time such as 2026-01-31T12:00:00Z", value)
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _kind(document: Document) -> str:
    return str(document.get("kind") or "")


def _part(document: Document, key: str, path: str) -> Document:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WireError(path, "an object", value)
    return value
