"""What a container needs of the driver, as the vendor's own generator wrote it down (CDI).

Where such a description of the node exists, a grant's device copies it for exactly the granted cards, and no vendor
runtime is needed. Where there is none, the container's runtime class must add the driver by the environment.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from hami.model.names import DeviceUuid

log = logging.getLogger(__name__)

KINDS: Final = ("k8s.device-plugin.nvidia.com/gpu", "nvidia.com/gpu")
"""The preferred first: the one made for device plug-ins."""
LISTS: Final = ("env", "deviceNodes", "netDevices", "mounts", "hooks", "additionalGids")
"""Parts of an edit that simply add up."""
CAP_HOOK: Final = "apply-cuda-memory-limits"
"""Name of the container toolkit's hook that acts on NVIDIA_GPU_MEMORY_LIMIT, from its release 1.20.1 on."""
SIZE_LIMIT: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEdits:
    """Container edits for some cards, and the version of the format they need."""

    version: str
    edits: Mapping[str, Sequence[Any]]

    @property
    def caps_memory(self) -> bool:
        """Whether starting the container runs the vendor's hook that sets the driver's memory limits."""
        hooks = [hook for hook in self.edits.get("hooks", ()) if isinstance(hook, dict)]
        return any(CAP_HOOK in map(str, hook.get("args") or ()) for hook in hooks)


@dataclass(slots=True)
class DriverSpecs:
    """The node's descriptions; files are read again when they change."""

    directories: tuple[Path, ...]
    _read: dict[Path, tuple[tuple[int, int], Mapping[str, Any]]] = field(default_factory=dict)

    def edits(self, uuids: Sequence[DeviceUuid]) -> DriverEdits | None:
        """What these cards need together; None where no description has all of them."""
        found = list(self._specs())
        for kind in KINDS:
            for spec in found:
                if spec.get("kind") == kind and (edits := _edits(spec, uuids)) is not None:
                    return DriverEdits(version=str(spec.get("cdiVersion", "")), edits=edits)
        return None

    def _specs(self) -> Iterator[Mapping[str, Any]]:
        for directory in self.directories:
            paths = sorted(directory.iterdir()) if directory.is_dir() else []
            for path in paths:
                # Our own devices lie in the same directory, one file a grant.
                if path.suffix in (".json", ".yaml", ".yml") and "nvidia" in path.name and path.is_file():
                    yield self._spec(path)

    def _spec(self, path: Path) -> Mapping[str, Any]:
        stat = path.stat()
        identity = stat.st_ino, stat.st_mtime_ns
        known = self._read.get(path)
        if known is None or known[0] != identity:
            known = identity, _load(path) if stat.st_size <= SIZE_LIMIT else {}
            self._read[path] = known
        return known[1]


def _load(path: Path) -> Mapping[str, Any]:
    """The file's document; someone else's file, so a broken one is as good as none."""
    try:
        with path.open("rb") as file:
            document = yaml.load(file, Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        log.warning("the device description %s cannot be read: %s", path, error)
        return {}
    return document if isinstance(document, dict) else {}


def _edits(spec: Mapping[str, Any], uuids: Sequence[DeviceUuid]) -> dict[str, list[Any]] | None:
    devices = {str(d.get("name")): d for d in spec.get("devices") or () if isinstance(d, dict)}
    if not uuids or any(uuid not in devices for uuid in uuids):
        return None
    result: dict[str, list[Any]] = {}
    for part in (spec, *(devices[uuid] for uuid in uuids)):
        edits = part.get("containerEdits")
        for name in LISTS:
            for entry in edits.get(name) or () if isinstance(edits, dict) else ():
                if entry not in result.setdefault(name, []):
                    result[name].append(entry)
    return result
