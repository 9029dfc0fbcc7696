"""One container of a pod document, and what it writes about a resource.

Families read their own odd requests with these; the reading of whole pods is `hami.alloc.request`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hami.model.claim import Role
from hami.model.names import WireError
from hami.model.quantity import parse_quantity, whole


class RequestError(WireError):
    """A pod whose request cannot be served as written, anywhere."""


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


def mapping_at(document: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    """An object inside a document; empty when absent, `RequestError` when it is something else."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RequestError(path, "an object", value)
    return value


def section(container: Container, kind: str) -> Mapping[str, Any]:
    """`resources.limits` or `resources.requests` of a container; empty when absent."""
    resources = mapping_at(container.document, "resources", f"{container.path}.resources")
    return mapping_at(resources, kind, f"{container.path}.resources.{kind}")


def amount(
    container: Container, resource: str, kinds: tuple[str, ...] = ("limits", "requests")
) -> tuple[Fraction, str] | None:
    """A resource's exact amount and the path it stands at: the limit, else the request, else None."""
    for kind in kinds:
        written = section(container, kind)
        if resource and resource in written:
            path = f"{container.path}.resources.{kind}[{resource}]"
            return _exact(written[resource], path), path
    return None


def integer(
    container: Container,
    resource: str,
    *,
    low: int,
    high: int | None = None,
    kinds: tuple[str, ...] = ("limits", "requests"),
) -> int | None:
    """A resource's amount as a whole number in a range, None when it is not written; `RequestError` for any other."""
    found = amount(container, resource, kinds)
    if found is None:
        return None
    exact, path = found
    value = whole(exact)
    if value is None or value < low or (high is not None and value > high):
        upto = "" if high is None else f" to {high}"
        raise RequestError(path, f"a whole number from {low}{upto}", _written(container, resource))
    return value


def environment(container: Container) -> tuple[Mapping[str, Any], ...]:
    """The container's environment entries as written."""
    entries = container.document.get("env") or ()
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
        raise RequestError(f"{container.path}.env", "a list of variables", entries)
    return tuple(entries)


def _written(container: Container, resource: str) -> object:
    return section(container, "limits").get(resource, section(container, "requests").get(resource))


def _exact(value: object, path: str) -> Fraction:
    try:
        return parse_quantity(value, path)
    except WireError as error:
        raise RequestError(error.field, error.expected, error.got) from error
