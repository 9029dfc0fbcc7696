"""Whose unused share of a device goes to whom, from what regions show at each look; `hami.alloc.lending` has the rules.

Nothing is lent on a device where a container is active of whose use or limit nothing is known: one without limit or
with policy `disable`, one whose programs MPS holds, one with HAMi's library or an older one of ours. A container with
policy `force` is lent nothing, and what it does not use goes to others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Final

from hami.agent.regions import DeviceView, Policy, RegionView
from hami.alloc.lending import Demand, lend
from hami.model.names import DeviceUuid

FULL_CORES: Final = 100
LONGEST_S: Final = 1.0
"""A longer time between two looks says nothing of how its use went, and loans have ended meanwhile."""

UNCHARGED_S: Final = 2.0
"""How long a container that launches without being charged is taken for one whose use is not known."""

_Key = tuple[str, DeviceUuid]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What to write for one device of one container."""

    grant_id: str
    device: int
    percent: int
    """Of the device's time, instead of its limit; 0 = its limit holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Counters of one container on one device, as they were at a look."""

    charged_ns: int
    waited_ns: int
    launches: int
    stamp_ns: int
    uncharged_s: float = float("-inf")
    """When it last launched without any limit, though others were there: its programs are MPS's clients, perhaps."""


@dataclass(slots=True)
class Loans:
    """What is lent, from one look to the next."""

    _demands: dict[_Key, Demand] = field(default_factory=dict)
    _counts: dict[_Key, _Counts] = field(default_factory=dict)
    _seen_s: float | None = None

    @property
    def standing(self) -> bool:
        """Whether anything is lent: then owners have to be watched closely."""
        return any(demand.loan > 0 for demand in self._demands.values())

    def learn(self, views: Mapping[str, RegionView], active: Set[str], now_s: float) -> list[Loan]:
        """After a further look: what to write to the regions. `active`: containers that work on their devices."""
        span_s = 0.0 if self._seen_s is None else now_s - self._seen_s
        self._seen_s = now_s
        if not 0 < span_s <= LONGEST_S:
            self._demands.clear()
        sharers: dict[DeviceUuid, list[tuple[str, int]]] = defaultdict(list)
        for grant_id, view in views.items():
            for index, device in enumerate(view.devices):
                if grant_id in active:
                    sharers[device.uuid].append((grant_id, index))
        self._follow(views, sharers, now_s, span_s)
        for uuid, those in sharers.items():
            known = [key for grant_id, _ in those if (key := (grant_id, uuid)) in self._demands]
            demands = [self._demands[key] for key in known]
            if len(known) == len(those):
                lent = lend(demands, now_s, span_s)
            else:
                lent = tuple(replace(demand, loan=0.0) for demand in demands)
            self._demands.update(zip(known, lent, strict=True))
        return self._told(views)

    def _follow(
        self,
        views: Mapping[str, RegionView],
        sharers: Mapping[DeviceUuid, Sequence[tuple[str, int]]],
        now_s: float,
        span_s: float,
    ) -> None:
        """Bring what is known of each container up to date."""
        before, self._demands = self._demands, {}
        counted, self._counts = self._counts, {}
        for uuid, those in sharers.items():
            for grant_id, index in those:
                view = views[grant_id]
                device, key = view.devices[index], (grant_id, uuid)
                demand, counts = before.get(key), counted.get(key)
                self._counts[key] = _count(device, counts, view.sharing, now_s)
                if not _known(view, device) or now_s - self._counts[key].uncharged_s < UNCHARGED_S:
                    continue
                if demand is None or counts is None or demand.limit != device.cores or not view.sharing:
                    # Nobody knows yet what it will use; what it did while no limit held was not charged.
                    borrows = view.policy is Policy.DEFAULT
                    self._demands[key] = Demand(limit=device.cores, borrows=borrows, since_s=now_s, risen_s=now_s)
                else:
                    self._demands[key] = _seen(demand, counts, self._counts[key], now_s, span_s)

    def _told(self, views: Mapping[str, RegionView]) -> list[Loan]:
        """Loans as regions should have them; those that stand are said again, for they end by themselves."""
        loans = []
        for grant_id, view in views.items():
            for index, device in enumerate(view.devices):
                demand = self._demands.get((grant_id, device.uuid))
                lent = 0 if demand is None else int(demand.loan)
                percent = device.cores + lent if lent else 0
                if percent or device.lent:
                    loans.append(Loan(grant_id=grant_id, device=index, percent=percent))
        return loans


def _known(view: RegionView, device: DeviceView) -> bool:
    """Whether its use is charged, and what it has a right to is known."""
    return view.policy in (Policy.DEFAULT, Policy.FORCE) and 0 < device.cores < FULL_CORES


def _count(device: DeviceView, before: _Counts | None, sharing: bool, now_s: float) -> _Counts:
    uncharged = (
        sharing and before is not None and device.launches > before.launches and device.stamp_ns == before.stamp_ns
    )
    return _Counts(
        charged_ns=device.charged_ns,
        waited_ns=device.waited_ns or 0,
        launches=device.launches,
        stamp_ns=device.stamp_ns,
        uncharged_s=now_s if uncharged else float("-inf") if before is None else before.uncharged_s,
    )


def _seen(demand: Demand, before: _Counts, now: _Counts, now_s: float, span_s: float) -> Demand:
    return demand.seen(
        now_s,
        span_s,
        used_ns=now.charged_ns - before.charged_ns,
        waited_ns=now.waited_ns - before.waited_ns,
        waiting=now.stamp_ns != before.stamp_ns and now.launches == before.launches,
    )
