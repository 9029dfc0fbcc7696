"""CPU and memory that pods ask for and nodes offer, read from the API's objects.

Kubernetes' own scheduler checks these; here they only tell what a node's free devices are still worth. So the readers
never refuse: an amount that cannot be read counts as nothing asked, or as an unknown offer.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final

from hami.model.host import Host
from hami.model.names import WireError
from hami.model.quantity import parse_quantity

_MIB: Final = 2**20
_MOST: Final = 2**40
"""Amounts are cut here, so that sums of a million of them still fit 64 bits."""


def asked(pod: Mapping[str, Any]) -> Host:
    """What a pod takes of its node: the larger of its running phase and of each init container beside earlier sidecars.

    The sum over app containers and sidecars, or more if an init container needs more for a while; plus the overhead of
    its runtime class. CPU and memory are taken apart.
    """
    spec = _part(pod, "spec")
    return Host(
        cpu_milli=min(ceil(_effective(spec, "cpu") * 1000), _MOST),
        memory_mib=min(ceil(_effective(spec, "memory") / _MIB), _MOST),
    )


def offered(node: Mapping[str, Any]) -> Host | None:
    """What a node offers to pods, or None where it does not say."""
    allocatable = _part(_part(node, "status"), "allocatable")
    cpu, memory = _amount(allocatable, "cpu"), _amount(allocatable, "memory")
    if cpu is None or memory is None:
        return None
    return Host(cpu_milli=min(floor(cpu * 1000), _MOST), memory_mib=min(floor(memory / _MIB), _MOST))


def _effective(spec: Mapping[str, Any], resource: str) -> Fraction:
    running = sum((_request(container, resource) for container in _listed(spec, "containers")), Fraction(0))
    sidecars = peak = Fraction(0)
    for container in _listed(spec, "initContainers"):
        amount = _request(container, resource)
        if container.get("restartPolicy") == "Always":
            sidecars += amount
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount)
    overhead = _amount(_part(spec, "overhead"), resource) or Fraction(0)
    return max(running + sidecars, peak) + overhead


def _request(container: Mapping[str, Any], resource: str) -> Fraction:
    resources = _part(container, "resources")
    asked_for = _amount(_part(resources, "requests"), resource)
    if asked_for is None:
        # The API server fills in a missing request from the limit.
        asked_for = _amount(_part(resources, "limits"), resource)
    return asked_for or Fraction(0)


def _amount(section: Mapping[str, Any], resource: str) -> Fraction | None:
    if resource not in section:
        return None
    try:
        return max(parse_quantity(section[resource], resource), Fraction(0))
    except WireError:
        return None


def _listed(spec: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    value = spec.get(key)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | tuple) else ()


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}
