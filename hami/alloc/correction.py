"""What a container's launches really took, against what they were charged.

A library in the container times its kernels with the driver's events. Where the driver gives a device to its users in
turns, a kernel longer than a turn is never timed without the turns of others, so its container pays too much and
obtains too little. The driver's own figures for processes tell the truth, late and in whole percents. So the difference
between device time obtained and charged is put right every second: that alone brings the mean to the limit. A factor on
charges, obtained by charged over the last seconds, follows slowly, so that less has to be put right; slowly, because
the library times better as soon as fewer kernels wait for each other, and a factor from before would then be wrong. It
goes back to one twice as fast, once what the library measured agrees with what the driver says.
"""

from dataclasses import dataclass, replace
from typing import Final

FULL: Final = 1000
"""A factor of one."""
LEAST: Final = 250
MOST: Final = 2000
STEP: Final = 0.25
"""Part of the way to what the sums say, a second."""
BACK: Final = 0.5
"""Part of the way back to one, after a second in which the library measured right."""
FORGET: Final = 0.6
"""What a second's past weighs in the next: sums reach back two or three seconds, over the driver's lag."""
WORTH_NS: Final = 20_000_000
"""Smaller differences are the rounding of whole percents; following them would only add noise."""
MOST_CHARGED_NS: Final = 250_000_000
"""Charged at once, at most: nobody is stopped for long by what the driver says late."""
MOST_MISSING_NS: Final = 1_000_000_000
"""Remembered, at most; a kernel of half a second is charged at one time and obtained over two seconds or three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The factor on one container's charges on one device, what it rests on, and what is to be put right."""

    permille: int = FULL
    obtained_ns: float = 0.0
    """Device time by the driver, weighted sum."""
    raw_ns: float = 0.0
    """Device time as the library measured it (charges without the factor), weighted sum."""
    begun: bool = False
    """The first second has passed; the driver's figures for it may be of the time before."""
    missing_ns: int = 0
    """Obtained beyond what was charged (negative: charged beyond that), and not yet put right."""
    amend_ns: int = 0
    """To be charged now, or taken back."""

    def learn(self, obtained_ns: int, charged_ns: int, doubt_ns: int = 0) -> "Correction":
        """After a further second or so, in which the driver saw `obtained_ns` and `charged_ns` were charged.

        The driver's figure may be off by `doubt_ns`; within that, what the library says is believed: of the charge, and
        of what it measured before the factor. So a factor that is not needed goes, however little the driver tells.
        """
        measured_ns = charged_ns * FULL / self.permille
        least_ns, most_ns = max(0, obtained_ns - doubt_ns), obtained_ns + doubt_ns
        missing_ns = self.missing_ns + max(least_ns, min(charged_ns, most_ns)) - charged_ns
        if not self.begun:
            return replace(self, begun=True, missing_ns=min(0, missing_ns), amend_ns=0)
        missing_ns = min(missing_ns, MOST_MISSING_NS)
        amend_ns = _amend(missing_ns)
        believed_ns = max(least_ns, min(measured_ns, most_ns))
        right = measured_ns >= WORTH_NS and abs(measured_ns - believed_ns) <= WORTH_NS / 2
        obtained = self.obtained_ns * FORGET + believed_ns
        raw = self.raw_ns * FORGET + measured_ns
        return Correction(
            permille=_back(self.permille) if right else _follow(self.permille, obtained, raw),
            obtained_ns=obtained,
            raw_ns=raw,
            begun=True,
            missing_ns=missing_ns - amend_ns,
            amend_ns=amend_ns,
        )

    def anew(self) -> "Correction":
        """With other neighbours: the factor goes on until two seconds have shown another."""
        return Correction(permille=self.permille)


def _amend(missing_ns: int) -> int:
    """What is put right at once.

    Of what is to be charged, a half: the driver's second is not the library's, and what it tells too early or too late
    would swing a container to and fro.
    """
    if abs(missing_ns) <= WORTH_NS:
        return 0
    return min(missing_ns // 2, MOST_CHARGED_NS) if missing_ns > 0 else missing_ns


def _back(permille: int) -> int:
    return round(permille + BACK * (FULL - permille))


def _follow(permille: int, obtained: float, raw: float) -> int:
    """The factor a second later; where the sums are near each other, it stays or goes back to one."""
    if obtained < WORTH_NS or raw < WORTH_NS:
        return permille
    target = FULL if abs(obtained - raw) <= WORTH_NS else FULL * obtained / raw
    return min(MOST, max(LEAST, round(permille + STEP * (target - permille))))
