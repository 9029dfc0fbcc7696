"""What part of each device's time each container had, by the driver's figures for processes, and what follows from it.

The figures are whole percents of the last second, for pids as this process sees them. A container whose processes the
driver does not name (their pids are not known yet, or it books all clients of an MPS server on that server) is left
as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hami.agent.regions import RegionView
from hami.alloc.correction import Correction
from hami.model.names import DeviceUuid

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


@dataclass(slots=True)
class _Account:
    """One container on one device."""

    charged_ns: int
    tenants: int
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
                    charged_ns=device.charged_ns,
                    tenants=tenants.get(device.uuid, 0),
                    percent=_percent(shares.get(device.uuid), view.host_pids),
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
    before: _Account | None, *, charged_ns: int, tenants: int, percent: float | None, span_s: float
) -> _Account:
    """The account a look later. Alone, kernels are timed clean and nothing is corrected."""
    if percent is None and before is not None and before.percent is not None:
        percent = 0.0  # the driver names those that worked
    account = _Account(charged_ns=charged_ns, tenants=tenants, correction=Correction(), percent=percent)
    if before is None or tenants <= 1:
        return account
    account.correction = before.correction if tenants == before.tenants else before.correction.anew()
    if percent is not None and 0 < span_s <= LONGEST_S and charged_ns >= before.charged_ns:
        obtained_ns = int(percent / 100 * span_s * 1e9)
        account.correction = account.correction.learn(obtained_ns, charged_ns - before.charged_ns)
    return account
