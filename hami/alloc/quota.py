"""Does the namespace still have room: ResourceQuota objects for memory and cores.

A quota's key is `limits.<memory resource>` or `limits.<cores resource>` of a family. Several quota objects of one
namespace all hold, so the smallest limit counts. What is used is not kept here: the caller derives it from the pods
the ledger holds, in one step with the decision.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hami.model.claim import Role
from hami.model.names import VendorWord, WireError
from hami.model.quantity import parse_quantity
from hami.model.vendor import Registry, Vendor

Amounts = tuple[int, int]
"""Memory in MiB and cores in percent of one device, summed over devices."""
NO_AMOUNTS: Final[Amounts] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a namespace may use of one family; None = no limit. An explicit 0 blocks."""

    memory_mib: int | None = None
    cores: int | None = None

    def fit(self, used: Amounts, asked: Amounts) -> bool:
        """Whether `asked` may be added to `used`. An amount that is not asked for is never over its limit."""
        return _fits(self.memory_mib, used[0], asked[0]) and _fits(self.cores, used[1], asked[1])


UNLIMITED: Final = Limits()


@dataclass(slots=True)
class Quotas:
    """All limits of a cluster, by namespace. Fed with raw ResourceQuota documents as they come and go."""

    registry: Registry
    _by_namespace: dict[str, dict[str, Mapping[VendorWord, Limits]]] = field(default_factory=dict)
    _merged: dict[tuple[str, VendorWord], Limits] = field(default_factory=dict)

    def put(self, quota: Mapping[str, Any]) -> tuple[WireError, ...]:
        """Take over a quota as it is now. Unusable values limit nothing and are returned as problems."""
        namespace, name = _key(quota)
        limits, problems = read_quota(quota, self.registry)
        self.drop(namespace, name)
        if limits:
            self._by_namespace.setdefault(namespace, {})[name] = limits
            self._merge(namespace)
        return problems

    def drop(self, namespace: str, name: str) -> None:
        """Forget a quota; the others of its namespace still hold."""
        known = self._by_namespace.get(namespace, {})
        if known.pop(name, None) is None:
            return
        if not known:
            del self._by_namespace[namespace]
        self._merge(namespace)

    def limits(self, namespace: str, vendor: VendorWord) -> Limits:
        """The smallest limits that hold in a namespace."""
        return self._merged.get((namespace, vendor), UNLIMITED)

    def fit(self, namespace: str, vendor: VendorWord, used: Amounts, asked: Amounts) -> bool:
        """Whether a namespace that uses `used` may have `asked` more of a family."""
        return self.limits(namespace, vendor).fit(used, asked)

    def _merge(self, namespace: str) -> None:
        every = self._by_namespace.get(namespace, {}).values()
        for vendor in self.registry:
            parts = [limits[vendor.name] for limits in every if vendor.name in limits]
            if parts:
                self._merged[namespace, vendor.name] = Limits(
                    memory_mib=_least(part.memory_mib for part in parts), cores=_least(part.cores for part in parts)
                )
            else:
                self._merged.pop((namespace, vendor.name), None)


def read_quota(
    quota: Mapping[str, Any], registry: Registry
) -> tuple[Mapping[VendorWord, Limits], tuple[WireError, ...]]:
    """The limits of one ResourceQuota document by family, and what in it is unusable.

    Memory is limited in the unit that pods ask in, so the limit is multiplied by the family's memory factor, too, or is
    one of bytes where such an amount is in a pod. A quota with scopes is not enforced and is named as a problem: which
    running pods it counts is not in the picture.
    """
    namespace, name = _key(quota)
    where = f"ResourceQuota {namespace}/{name} "
    found: dict[VendorWord, Limits] = {}
    problems: list[WireError] = []

    def part(value: object, path: str) -> Mapping[str, Any]:
        if value is not None and not isinstance(value, Mapping):
            problems.append(WireError(f"{where}{path}", "keys and values", value))
        return value if isinstance(value, Mapping) else {}

    spec = part(quota.get("spec"), "spec")
    hard = part(spec.get("hard"), "spec.hard")

    def limit(resource: str) -> int | None:
        key = f"limits.{resource}"
        if not resource or key not in hard:
            return None
        path = f"{where}spec.hard[{key}]"
        try:
            value = parse_quantity(hard[key], path)
        except WireError as error:
            problems.append(error)
            return None
        # A fraction of a unit cannot be used, and less than nothing is nothing.
        return max(0, math.floor(value))

    for vendor in registry:
        memory, cores = limit(vendor.resources.memory), limit(vendor.resources.cores)
        if memory is not None or cores is not None:
            found[vendor.name] = Limits(memory_mib=None if memory is None else _mib(memory, vendor), cores=cores)
    scoped = spec.get("scopes") or spec.get("scopeSelector")
    if found and scoped:
        problems.append(WireError(f"{where}spec.scopes", "no scopes on a quota of device memory or cores", scoped))
        found.clear()
    return found, tuple(problems)


def peak(parts: Iterable[tuple[Role, int]]) -> int:
    """The most a pod holds at once of an amount, from its containers in spec order, init containers first.

    An init container runs beside the sidecars declared before it, app containers beside all sidecars.
    """
    sidecars = apps = highest = 0
    for role, value in parts:
        match role:
            case Role.SIDECAR:
                sidecars += value
            case Role.INIT:
                highest = max(highest, sidecars + value)
            case Role.APP:
                apps += value
    return max(highest, apps + sidecars)


def _fits(limit: int | None, used: int, asked: int) -> bool:
    return limit is None or asked <= 0 or used + asked <= limit


def _mib(amount: int, vendor: Vendor) -> int:
    if vendor.bytes_from and amount >= vendor.bytes_from:
        return amount >> 20
    return amount * max(1, vendor.memory_factor)


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _key(quota: Mapping[str, Any]) -> tuple[str, str]:
    meta = quota.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")
