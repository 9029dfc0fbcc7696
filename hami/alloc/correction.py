"""What a container's launches really took, against what they were charged.

A library in the container times its kernels with the driver's events. Where the driver gives a device to its users in
turns, a kernel longer than a turn is never timed without the turns of neighbours, so its container pays too much and
obtains too little. The driver's own figures for processes tell the truth, late and in whole percents. A factor on
charges brings the two together: device time obtained by device time charged, both summed over the last seconds. What
was charged wrongly until the factor is right is put right afterwards.
"""

from dataclasses import dataclass, replace
from typing import Final

FULL: Final = 1000
"""A factor of one."""
LEAST: Final = 62
"""A sixteenth: fifteen busy neighbours with turns as long as ours."""
MOST: Final = 2000
FORGET: Final = 0.6
"""What a second's past weighs in the next: sums reach back two or three seconds, over the driver's lag."""
WORTH_NS: Final = 20_000_000
"""Sums below this say nothing: two percent of a second, against figures of whole percents."""
MOST_CHARGED_NS: Final = 100_000_000
"""Charged at once, at most: nobody is stopped for long by what the driver says late."""
ROUNDING: Final = 0.02
"""Differences below this part are the rounding of whole percents; following them would only add noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The factor on one container's charges on one device, and what it rests on."""

    permille: int = FULL
    obtained_ns: float = 0.0
    """Device time by the driver, weighted sum."""
    raw_ns: float = 0.0
    """Device time as the library measured it (charges without the factor), weighted sum."""
    begun: bool = False
    """The first second was let pass: the driver's figures for it are of the time before."""
    missing_ns: int = 0
    """Obtained beyond what was charged (negative: charged beyond that), and not yet put right."""
    amend_ns: int = 0
    """To be charged now, or taken back."""

    def learn(self, obtained_ns: int, charged_ns: int) -> "Correction":
        """After a further second or so, in which the driver saw `obtained_ns` and `charged_ns` were charged."""
        missing_ns = self.missing_ns + obtained_ns - charged_ns
        if not self.begun:
            return replace(self, begun=True, missing_ns=missing_ns, amend_ns=0)
        obtained = self.obtained_ns * FORGET + max(0, obtained_ns)
        raw = self.raw_ns * FORGET + max(0, charged_ns) * FULL / self.permille
        permille = self.permille
        if obtained >= WORTH_NS and raw >= WORTH_NS:
            ratio = obtained / raw
            if abs(ratio - self.permille / FULL) > ROUNDING * ratio:
                permille = min(MOST, max(LEAST, round(FULL * ratio)))
        amend_ns = min(missing_ns, MOST_CHARGED_NS) if abs(missing_ns) > WORTH_NS else 0
        return Correction(
            permille=permille,
            obtained_ns=obtained,
            raw_ns=raw,
            begun=True,
            missing_ns=missing_ns - amend_ns,
            amend_ns=amend_ns,
        )

    def anew(self) -> "Correction":
        """With other neighbours: the factor goes on until two seconds have shown another."""
        return Correction(permille=self.permille)
