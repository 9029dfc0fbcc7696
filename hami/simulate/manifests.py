"""Nodes and pods from YAML or JSON manifests: single objects, several documents, and lists as `kubectl get -o` prints.

Workloads stand for the pods that their controllers would make. Everything else in a file is left alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from hami.model.names import WireError
from hami.simulate.workload import Document, Item

MOST_REPLICAS: Final = 100_000

_COUNTS: Final = {
    "Deployment": "replicas",
    "ReplicaSet": "replicas",
    "StatefulSet": "replicas",
    "Job": "parallelism",
}
"""Workloads, and the field of their spec that says how many pods run at a time."""


def read_nodes(text: str, file: str) -> tuple[Item, ...]:
    """The nodes of a file; WireError when there are none."""
    found = tuple(Item(where=where, document=each) for where, each in _objects(text, file) if _kind(each) == "Node")
    if not found:
        raise WireError(file, "at least one Node")
    return found


def read_pods(text: str, file: str) -> tuple[Item, ...]:
    """The pods of a file, and those of its workloads; WireError when there are none."""
    found: list[Item] = []
    for where, document in _objects(text, file):
        if _kind(document) == "Pod":
            found.append(Item(where=where, document=document))
        elif _kind(document) in _COUNTS:
            found.extend(_pods_of(where, document))
    if not found:
        raise WireError(file, "at least one Pod, Deployment, ReplicaSet, StatefulSet or Job")
    return tuple(found)


def _objects(text: str, file: str) -> Iterator[tuple[str, Document]]:
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}: column {mark.column + 1}" if mark else file
        raise WireError(place, f"YAML or JSON ({error.problem})") from error
    except yaml.YAMLError as error:
        raise WireError(file, f"YAML or JSON ({error})") from error
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


def _pods_of(where: str, document: Document) -> Iterator[Item]:
    spec = _part(document, "spec", where)
    field = _COUNTS[_kind(document)]
    count = spec.get(field, 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_REPLICAS:
        raise WireError(f"{where}: spec.{field}", f"a whole number from 0 to {MOST_REPLICAS}", count)
    template = _part(spec, "template", f"{where}: spec")
    owner, metadata = _part(document, "metadata", where), _part(template, "metadata", f"{where}: spec.template")
    for i in range(count):
        named: dict[str, Any] = {
            **metadata,
            "name": f"{owner.get('name', '')}-{i}",
            "namespace": owner.get("namespace", "default"),
        }
        yield Item(where=where, document={**template, "kind": "Pod", "metadata": named})


def _kind(document: Document) -> str:
    return str(document.get("kind") or "")


def _part(document: Document, key: str, where: str) -> Document:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise WireError(f"{where}.{key}", "an object", value)
    return value
