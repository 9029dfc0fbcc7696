"""What part of each device's time each container had, by the driver's figures for processes, and what follows from it.

The figures are whole percents of the last second, for pids as this process sees them. A container whose processes the
driver does not name (their pids are not known yet, or it books all clients of an MPS server on that server) is left
as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hami.agent.regions import DeviceView, RegionView
from hami.alloc.correction import Correction
from hami.model.names import DeviceUuid

FULL_CORES: Final = 100
ROUNDING: Final = 0.5
"""Points that the driver's percent of one process may be off."""
LONGEST_S: Final = 3.0
"""A longer time between two looks says nothing: the driver's figures do not reach back that far."""

ProcessShares = Mapping[DeviceUuid, Mapping[int, int]]
"""Percent of the time, by device and pid; processes that did nothing may be absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to write for one device of one container."""

    grant_id: str
    device: int
    permille: int
    tenants: int
    amend_ns: int
    """Device time had beyond what was charged; negative: charged without having been had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """One container on one device."""

    charged_ns: int
    tenants: int
    sharing: bool
    forced: bool
    """Its limit was seen to hold without being told to: its policy says so."""
    correction: Correction
    percent: float | None
    """Of the last second; None = the driver has never named one of its processes."""


@dataclass(slots=True)
class Shares:
    """What is known of every container's share, from one look to the next."""

    _accounts: dict[tuple[str, DeviceUuid], _Account] = field(default_factory=dict)
    _seen_s: float | None = None

    def percent(self, grant_id: str, uuid: DeviceUuid) -> float | None:
        """Percent of the device's time in the last second; None where the driver does not tell."""
        account = self._accounts.get((grant_id, uuid))
        return None if account is None else account.percent

    def learn(
        self, views: Mapping[str, RegionView], shares: ProcessShares, tenants: Mapping[DeviceUuid, int], now_s: float
    ) -> list[Verdict]:
        """After a further second: what to write to the regions. `tenants`: active containers on each device."""
        span_s = 0.0 if self._seen_s is None else now_s - self._seen_s
        self._seen_s = now_s
        before, self._accounts = self._accounts, {}
        verdicts = []
        for grant_id, view in views.items():
            for index, device in enumerate(view.devices):
                account = _follow(
                    before.get((grant_id, device.uuid)),
                    device,
                    tenants=tenants.get(device.uuid, 0),
                    sharing=view.sharing,
                    percent=_percent(shares.get(device.uuid), view.host_pids),
                    doubt=ROUNDING * sum(pid in shares.get(device.uuid, {}) for pid in view.host_pids),
                    span_s=span_s,
                )
                self._accounts[grant_id, device.uuid] = account
                told = account.correction
                if (told.permille, account.tenants, told.amend_ns) != (device.correction, device.tenants, 0):
                    verdicts.append(
                        Verdict(
                            grant_id=grant_id,
                            device=index,
                            permille=told.permille,
                            tenants=account.tenants,
                            amend_ns=told.amend_ns,
                        )
                    )
        return verdicts


def _percent(shares: Mapping[int, int] | None, pids: Iterable[int]) -> float | None:
    named = [shares[pid] for pid in pids if pid in shares] if shares is not None else []
    return float(min(100, sum(named))) if named else None


def _follow(
    before: _Account | None,
    device: DeviceView,
    *,
    tenants: int,
    sharing: bool,
    percent: float | None,
    doubt: float,
    span_s: float,
) -> _Account:
    """The account a look later. Nothing is learned while no limit holds: then nothing is charged."""
    if percent is None and before is not None and before.percent is not None:
        percent = 0.0  # the driver names those that worked
    charged_ns = 0 if before is None else device.charged_ns - before.charged_ns
    calm = before is not None and not before.sharing and not sharing
    forced = before is not None and (before.forced or (calm and charged_ns > 0))
    correction = Correction()
    if before is not None and (sharing or forced) and 0 < device.cores < FULL_CORES:
        if before.sharing or before.forced:
            correction = before.correction
        if tenants != before.tenants:
            correction = Correction() if tenants <= 1 else correction.anew()
        if percent is not None and 0 < span_s <= LONGEST_S and charged_ns >= 0:
            # Each process's percent is rounded.
            obtained_ns, doubt_ns = (int(points / 100 * span_s * 1e9) for points in (percent, doubt))
            correction = correction.learn(obtained_ns, charged_ns, doubt_ns)
    return _Account(
        charged_ns=device.charged_ns,
        tenants=tenants,
        sharing=sharing,
        forced=forced,
        correction=correction,
        percent=percent,
    )
