"""What a pod asks of its node beside devices, and what a node offers."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """CPU and memory of a machine, as Kubernetes counts them."""

    cpu_milli: int
    memory_mib: int

    def plus(self, other: "Host") -> "Host":
        return Host(cpu_milli=self.cpu_milli + other.cpu_milli, memory_mib=self.memory_mib + other.memory_mib)

    def minus(self, other: "Host") -> "Host":
        return Host(cpu_milli=self.cpu_milli - other.cpu_milli, memory_mib=self.memory_mib - other.memory_mib)

    def covers(self, other: "Host") -> bool:
        """Whether `other` fits in it."""
        return other.cpu_milli <= self.cpu_milli and other.memory_mib <= self.memory_mib


NO_HOST: Final = Host(cpu_milli=0, memory_mib=0)
