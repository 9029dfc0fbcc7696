"""Grants on disk: what each container was given, kept so that it survives this process.

`<HOOK>/vgpu/grants/<id>/` holds `etc` (mounted at /etc/hami; empty until the owner is confirmed, and an empty one lets
nothing through), `region` (the shared region's directory) and `record.json`, which containers don't see. With devices
handed out through CDI, `<cdi dir>/hami.io-grant-<id>.json` is the grant's own device.
"""

import contextlib
import enum
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from hami.model.claim import MigReservation, Share
from hami.model.names import DeviceUuid, PodKey, PodUid, WireError
from hami.model.wire.grant import ENFORCERS
from hami.model.wire.mig import read_reservations, write_reservations
from hami.node.atomic import write_atomically
from hami.node.installed import HookTree

GRANT_ID: Final = re.compile(r"[0-9a-f]{32}")
CDI_KIND: Final = "hami.io/grant"
CDI_VERSION: Final = "0.5.0"
"""The first version in which a device's name may start with a digit."""
CDI_FILE: Final = re.compile(r"hami\.io-grant-([0-9a-f]{32})\.json")
RECORD_LIMIT: Final = 1024 * 1024
"""Bytes; a record of sixteen devices has about two KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiDevice:
    """What a device does to a container that gets it, in the container device interface's format."""

    edits: Mapping[str, Any]
    version: str = CDI_VERSION
    """Of the format, as far as the edits need it."""


class State(enum.Enum):
    """How far a grant has come."""

    TENTATIVE = "tentative"
    """Answered; whose it is, is not confirmed."""
    SETTLED = "settled"
    REFUSED = "refused"
    """The owner is known and gets nothing now; tried again at each start of its container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The container a grant belongs to, or is thought to belong to."""

    pod_uid: PodUid
    key: PodKey
    container: str
    position: int
    """Segment of the container in the pod's allocation."""
    containers: int
    """How many segments the pod has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One answer to `Allocate`, and what became of it."""

    id: str
    device_ids: frozenset[str]
    made_unix: int
    visible: tuple[DeviceUuid, ...] = ()
    """Devices that the answer itself made visible (environment strategy); with CDI the device file decides."""
    state: State = State.TENTATIVE
    holder: Holder | None = None
    shares: tuple[Share, ...] = ()
    mig: tuple[MigReservation, ...] = ()
    """The instance of each share, made, where the cards are in MIG mode; the hardware holds their limits."""
    enforced_by: str = "library"
    """Who holds the limits, in the grant file's words: our library, the driver, or the MPS server."""
    reason: str = ""
    """Why it was refused."""


def new_id() -> str:
    """A grant id nobody can guess: it names paths that containers get mounted."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class GrantStore:
    """The grants of one node."""

    tree: HookTree
    cdi_dir: Path | None
    """None: devices are handed out through the environment."""
    problems: list[str] = field(default_factory=list)
    """Records that `load` could not read."""

    def etc(self, grant_id: str) -> Path:
        return self.tree.grants / grant_id / "etc"

    def region_dir(self, grant_id: str) -> Path:
        return self.tree.grants / grant_id / "region"

    def region(self, grant_id: str) -> Path:
        return self.region_dir(grant_id) / f"{grant_id}.cache"

    def own_region(self, grant_id: str) -> Path:
        """The region's file under a name that its container cannot reach, so that nobody makes us open another file."""
        return self.tree.grants / grant_id / "region.own"

    def adopt_region(self, grant_id: str) -> None:
        """Give a region that an earlier release made its name of our own."""
        own, path = self.own_region(grant_id), self.region(grant_id)
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            if not own.exists() and stat.S_ISREG(path.lstat().st_mode):
                os.link(path, own, follow_symlinks=False)
                if not stat.S_ISREG(own.lstat().st_mode):
                    own.unlink()

    def show_region(self, grant_id: str) -> bool:
        """Have the region's file where its container finds it; False if it is there. A container may remove it, or put
        something else there."""
        path, own_path = self.region(grant_id), self.own_region(grant_id)
        own = own_path.stat()
        try:
            there = path.lstat()
        except FileNotFoundError:
            there = None
        if there is not None and (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
            return False
        # A reboot may have taken the directory's content, not the record.
        path.parent.mkdir(mode=0o777, exist_ok=True)
        path.parent.chmod(0o777)
        temporary = self.tree.grants / grant_id / f".{new_id()}"
        os.link(own_path, temporary)
        try:
            if there is not None and stat.S_ISDIR(there.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def load(self) -> dict[str, Grant]:
        """Every grant with a readable record; a directory without one is reported in `problems` and left to `sweep`."""
        self.problems.clear()
        found: dict[str, Grant] = {}
        for directory in self._directories():
            try:
                path = directory / "record.json"
                if path.stat().st_size > RECORD_LIMIT:
                    raise WireError(str(path), f"at most {RECORD_LIMIT} bytes")
                found[directory.name] = _read(directory.name, orjson.loads(path.read_bytes()))
            except (OSError, ValueError) as error:
                self.problems.append(f"{directory}: {error}")
        return found

    def create(self, grant: Grant) -> None:
        """Make the grant's directories, so that they can be mounted, and its record."""
        directory = self.tree.grants / grant.id
        self.etc(grant.id).mkdir(parents=True, exist_ok=True)
        region = self.region_dir(grant.id)
        region.mkdir(exist_ok=True)
        region.chmod(0o777)  # programs run as any user; mkdir's own mode is cut by the umask
        directory.chmod(0o755)
        self.save(grant)

    def save(self, grant: Grant) -> None:
        write_atomically(self.tree.grants / grant.id / "record.json", orjson.dumps(_write(grant)), mode=0o600)

    def open_up(self, grant_id: str, grant_file: str) -> None:
        """Write the grant file: from now on the container may use what it says."""
        write_atomically(self.etc(grant_id) / "grant", grant_file.encode())

    def close_down(self, grant_id: str) -> None:
        """Take the grant file away: the interposer refuses every allocation."""
        (self.etc(grant_id) / "grant").unlink(missing_ok=True)

    def link(self, grant: Grant) -> None:
        """Make `containers/<pod uid>_<container>` lead to the region, where monitors look for it."""
        if grant.holder is None:
            return
        link = self._link_path(grant.holder)
        target = os.path.relpath(self.region_dir(grant.id), link.parent)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        temporary = link.with_name(f".{link.name}.{grant.id}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)

    def write_device(self, grant_id: str, device: CdiDevice) -> bool:
        """Write the grant's CDI device; False when the file already says exactly this."""
        if self.cdi_dir is None:
            return False
        devices = [{"name": grant_id, "containerEdits": device.edits}]
        data = orjson.dumps({"cdiVersion": device.version, "kind": CDI_KIND, "devices": devices})
        path = self._cdi_path(grant_id)
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == data:
                return False
        self.cdi_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        return True

    def remove(self, grant_id: str) -> None:
        """Delete everything of a grant. Programs that still have the region mapped keep their inode."""
        if self.cdi_dir is not None:
            self._cdi_path(grant_id).unlink(missing_ok=True)
        region = self.region_dir(grant_id)
        for link in self.tree.containers.iterdir():
            if link.is_symlink() and (link.parent / link.readlink()).resolve() == region.resolve():
                link.unlink(missing_ok=True)
        shutil.rmtree(self.tree.grants / grant_id, ignore_errors=True)

    def strays(self, known: Mapping[str, Grant]) -> Iterator[str]:
        """Ids of directories and CDI files that no known grant explains."""
        named = {directory.name for directory in self._directories()}
        if self.cdi_dir is not None and self.cdi_dir.is_dir():
            named |= {found[1] for path in self.cdi_dir.iterdir() if (found := CDI_FILE.fullmatch(path.name))}
        yield from sorted(named - set(known))

    def _directories(self) -> list[Path]:
        if not self.tree.grants.is_dir():
            return []
        return sorted(path for path in self.tree.grants.iterdir() if GRANT_ID.fullmatch(path.name) and path.is_dir())

    def _cdi_path(self, grant_id: str) -> Path:
        assert self.cdi_dir is not None
        return self.cdi_dir / f"hami.io-grant-{grant_id}.json"

    def _link_path(self, holder: Holder) -> Path:
        return self.tree.containers / f"{holder.pod_uid}_{holder.container}"


def _write(grant: Grant) -> dict[str, Any]:
    document: dict[str, Any] = {
        "version": 1,
        "device_ids": sorted(grant.device_ids),
        "made": grant.made_unix,
        "visible": list(grant.visible),
        "state": grant.state.value,
        "shares": [[share.uuid, share.kind, share.memory_mib, share.cores] for share in grant.shares],
        "enforced_by": grant.enforced_by,
        "reason": grant.reason,
    }
    if grant.mig:
        document["mig"] = write_reservations(grant.mig)
    if grant.holder is not None:
        holder = grant.holder
        document["holder"] = {
            "uid": holder.pod_uid,
            "namespace": holder.key.namespace,
            "name": holder.key.name,
            "container": holder.container,
            "position": holder.position,
            "containers": holder.containers,
        }
    return document


def _enforcer(word: object) -> str:
    if word not in ENFORCERS:
        raise ValueError(f"enforced_by is {word!r}")
    return str(word)


def _read(grant_id: str, document: Any) -> Grant:
    """Our own file, but a disk may have lost half of it: anything unexpected is a WireError."""
    try:
        holder = document.get("holder")
        return Grant(
            id=grant_id,
            device_ids=frozenset(map(str, document["device_ids"])),
            made_unix=int(document["made"]),
            visible=tuple(DeviceUuid(uuid) for uuid in document["visible"]),
            state=State(document["state"]),
            holder=None
            if holder is None
            else Holder(
                pod_uid=PodUid(holder["uid"]),
                key=PodKey(holder["namespace"], holder["name"]),
                container=str(holder["container"]),
                position=int(holder["position"]),
                containers=int(holder["containers"]),
            ),
            shares=tuple(
                Share(uuid=DeviceUuid(uuid), kind=kind, memory_mib=int(memory), cores=int(cores))
                for uuid, kind, memory, cores in document["shares"]
            ),
            mig=read_reservations(str(document.get("mig", "")), f"grants/{grant_id}/record.json"),
            enforced_by=_enforcer(document.get("enforced_by", "library")),
            reason=str(document["reason"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WireError(f"grants/{grant_id}/record.json", "a grant record", repr(error)) from error
