"""A grant in the kubelet's and the container runtime's words.

The answer to `Allocate` comes before the owner is certain, so it names only the grant: its directories, and its CDI
device or, with the environment strategy, the devices it is thought to be about. What depends on the owner stands in the
grant file, and with CDI in the device's file, both written when the owner is known.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from google.protobuf.message import DecodeError

from hami.agent.pb.deviceplugin_pb2 import CDIDevice, ContainerAllocateResponse
from hami.agent.pb.deviceplugin_pb2 import Mount as MountMessage
from hami.alloc import grant as contract
from hami.alloc.grant import GrantPaths, Mount
from hami.alloc.request import Container, environment, task_priority
from hami.model.claim import Share
from hami.model.names import DeviceUuid
from hami.model.settings import NvidiaConfig
from hami.model.vendor import Vendor
from hami.model.wire.grant import POLICIES, write_grant
from hami.node.driver_spec import DriverEdits, DriverSpecs
from hami.node.grants import CDI_KIND, CDI_VERSION, CdiDevice, Grant, GrantStore, State
from hami.node.mps import MpsPaths

NO_DEVICE: Final = "void"
"""What the vendor's runtime takes as: leave this container alone."""

Strategy = Literal["cdi", "env"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What every grant of this node gets beside its own: a simulated driver's libraries and state."""

    env: Mapping[str, str]
    mounts: tuple[Mount, ...]


NO_ADDITIONS: Final = Additions(env={}, mounts=())


class Places(Protocol):
    """What MPS has for single containers. Calls block."""

    def admit(self, place: str, percent: int, pinned_mib: int) -> None:
        """Have a container's place, with limits; 0 = none. Raises MpsError."""
        ...

    def dismiss(self, place: str) -> None:
        """Its container is over."""
        ...

    def places(self) -> frozenset[str]:
        """Those that are there."""
        ...


class Caps(Protocol):
    """What this node's driver can hold by itself."""

    def can_hold(self, shares: Sequence[Share]) -> bool:
        """Whether the driver can hold the memory of each of a container's shares."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How this node words its grants."""

    store: GrantStore
    vendor: Vendor
    nvidia: NvidiaConfig
    library: Path
    """The installed library of this version."""
    strategy: Strategy
    additions: Additions = NO_ADDITIONS
    driver: DriverSpecs | None = None
    """The vendor's descriptions of this node's cards; None where the driver is simulated."""
    caps: Caps | None = None
    """None: the driver is asked to hold nothing."""
    host_pid: Callable[[], Path | None] = lambda: None
    """Where the host-pid broker is served now; None while it is not."""
    mps: Callable[[], MpsPaths | None] = lambda: None
    """The MPS daemon's directories, on a node whose sharers run side by side, while it answers."""
    places: Places | None = None
    """None: this node's sharers take turns."""

    def paths(self, grant_id: str) -> GrantPaths:
        tree = self.store.tree
        return GrantPaths(
            hook=str(tree.vgpu),
            etc=str(self.store.etc(grant_id)),
            region=str(self.store.region_dir(grant_id)),
            region_name=self.store.region(grant_id).name,
            library=str(self.library),
            preload=str(tree.preload),
            host_pid=str(self.host_pid() or ""),
        )

    def allocate(self, grant: Grant, *, preload: bool) -> ContainerAllocateResponse:
        """The answer. With CDI everything that depends on the owner is left to the device.

        The environment strategy names the devices and the limits that the thought owner gets: for the runtime, for
        people and for old libraries. Ours obeys the grant file.
        """
        paths = self.paths(grant.id)
        env = {**contract.fixed_env(self.nvidia, paths), **self.additions.env}
        answer = ContainerAllocateResponse()
        if self.strategy == "cdi":
            preload = False
            answer.cdi_devices.append(CDIDevice(name=f"{CDI_KIND}={grant.id}"))
        else:
            env |= {**self._owner_env(grant, visible=False), **self._mps_env(grant)}
            env[self.vendor.env.visible] = ",".join(grant.visible) or NO_DEVICE
            preload = preload and not grant.mig
        answer.envs.update(env)
        beside = self._mps_mounts(grant) if self.strategy == "env" else ()
        for mount in (*contract.mounts(paths, preload=preload), *beside, *self.additions.mounts):
            answer.mounts.append(
                MountMessage(container_path=mount.container, host_path=mount.host, read_only=mount.read_only)
            )
        return answer

    def visible_in(self, answer: bytes) -> tuple[DeviceUuid, ...]:
        """The devices that an earlier answer, as the kubelet stored it, has shown; none with CDI."""
        try:
            shown = ContainerAllocateResponse.FromString(answer).envs.get(self.vendor.env.visible, "")
        except DecodeError:
            return ()
        return tuple(DeviceUuid(uuid) for uuid in shown.split(",") if uuid and uuid != NO_DEVICE)

    def _owner_env(self, grant: Grant, *, visible: bool, capped: bool = False) -> dict[str, str]:
        """Devices and limits; of instances only which they are. `capped`: the vendor's start-up hook sets the cap."""
        if not grant.mig:
            return contract.owner_env(grant.shares, self.vendor, visible=visible, driver_cap=capped)
        shown = ",".join(shown_devices(grant))
        return {"HAMI_DEVICE_UUIDS": shown, **({self.vendor.env.visible: shown} if visible else {})}

    def edits(self, grant: Grant, container: Container | None) -> CdiDevice:
        """What the grant's CDI device does to the container; without shares it shows no device.

        The hardware holds the limits of instances, so our library is left out there.

        Where the vendor has described what its cards need, that is part of it, and the vendor's runtime is told to
        leave the container alone; else the runtime is told which cards to add.
        """
        driver = self.driver.edits(shown_devices(grant)) if self.driver is not None else None
        capped = self._capped_by_hook(grant, driver)
        env = {self.vendor.env.visible: NO_DEVICE, **self._owner_env(grant, visible=driver is None, capped=capped)}
        env |= self._mps_env(grant)
        preload = not grant.mig and (container is None or not contract.opts_out(container))
        mounts = [m for m in contract.mounts(self.paths(grant.id), preload=preload) if m.container == contract.PRELOAD]
        mounts += self._mps_mounts(grant)
        given = driver.edits if driver else {}
        others = [entry for entry in given.get("env", ()) if str(entry).partition("=")[0] not in env]
        edits: dict[str, Any] = {
            **given,
            "env": [*others, *(f"{name}={value}" for name, value in sorted(env.items()))],
            "mounts": [*given.get("mounts", ()), *(_cdi_mount(mount) for mount in mounts)],
        }
        version = max(CDI_VERSION, driver.version if driver else "", key=_version)
        return CdiDevice(version=version, edits={name: entries for name, entries in edits.items() if entries})

    def enforcer(self, grant: Grant, *, without_mps: bool = False) -> str:
        """Who will hold the limits from the start of the grant's container on, in the grant file's words."""
        if not without_mps and self.answered_by(grant) == "mps":
            return "mps"
        driver = self.driver.edits(shown_devices(grant)) if self.driver is not None and not grant.mig else None
        return "driver" if self._capped_by_hook(grant, driver) else "library"

    def answered_by(self, grant: Grant) -> str:
        """Who holds the compute limit as far as the answer to `Allocate` goes: `mps` or `library`.

        With the environment strategy a container has been sent to MPS by the answer, or never is.
        """
        usable = self.mps() is not None and not grant.mig and bool(grant.shares)
        sent = self.strategy == "cdi" or grant.state is State.TENTATIVE or grant.enforced_by == "mps"
        return "mps" if usable and sent else "library"

    def _mps_env(self, grant: Grant) -> dict[str, str]:
        if grant.enforced_by != "mps":
            return {}
        paths = self.mps()
        told = contract.mps_own_limits(grant.shares, named=paths is not None and bool(paths.server))
        return contract.mps_env(
            grant.shares,
            cores=self._cores_limited(),
            memory=told and not self._capped(grant),
            beside_mib=self._beside_mib(),
        )

    def admit(self, grant: Grant) -> None:
        """Have the container's place at MPS, with its limits. Blocks. Raises MpsError."""
        if self.places is None:
            return
        percent = contract.mps_ceiling(grant.shares) if self._cores_limited() else 0
        pinned = 0 if self._capped(grant) else contract.mps_most(grant.shares, self._beside_mib())
        self.places.admit(grant.id, percent, pinned)

    def _cores_limited(self) -> bool:
        return not self.nvidia.disable_core_limit and self.nvidia.gpu_core_policy != "disable"

    def _capped(self, grant: Grant) -> bool:
        """Whether the driver holds the container's memory by itself."""
        return self.caps is not None and self.caps.can_hold(grant.shares)

    def _beside_mib(self) -> int:
        """What a program's contexts and code may take beside the container's limit."""
        return 0 if self.nvidia.memory_accounting == "strict" else contract.MPS_BESIDE_MIB

    def _mps_mounts(self, grant: Grant) -> tuple[Mount, ...]:
        paths = self.mps() if grant.enforced_by == "mps" else None
        if paths is None:
            return ()
        return contract.mps_mounts(str(paths.pipe_of(grant.id)), str(paths.log), str(paths.shm or ""))

    def _capped_by_hook(self, grant: Grant, driver: DriverEdits | None) -> bool:
        """Whether the vendor's hook on each of the grant's cards caps the container before it starts. It knows one
        amount for all cards, and without a driver that can do it the container would not start."""
        return (
            self.caps is not None
            and self.strategy == "cdi"
            and not grant.mig
            and driver is not None
            and driver.caps_memory
            and len({share.memory_mib for share in grant.shares}) == 1
            and self.caps.can_hold(grant.shares)
        )

    def grant_file(self, grant: Grant, container: Container) -> str:
        """The text that the interposer obeys; instances have no limits beside their own."""
        shares: Sequence[Share] = grant.shares
        if grant.mig:
            kind = self.vendor.name
            shares = [Share(uuid=uuid, kind=kind, memory_mib=0, cores=0) for uuid in shown_devices(grant)]
        made = contract.grant_file(
            shares,
            self._policy(container),
            priority=task_priority(container, self.vendor),
            paths=self.paths(grant.id),
            enforced_by=grant.enforced_by,
        )
        return write_grant(made)

    def _policy(self, container: Container) -> NvidiaConfig:
        """The configuration with the container's own core policy, which admission writes and people may."""
        written = [e.get("value") for e in environment(container) if e.get("name") == self.vendor.env.core_policy]
        policy = written[-1] if written else None
        if policy not in POLICIES:
            return self.nvidia
        return replace(self.nvidia, gpu_core_policy=str(policy))


def shown_devices(grant: Grant) -> tuple[DeviceUuid, ...]:
    """What the grant's container is to see: its devices, or its instances of them."""
    if not grant.mig:
        return tuple(share.uuid for share in grant.shares)
    return tuple(DeviceUuid(each.instance.uuid) for each in grant.mig if each.instance is not None)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


def _cdi_mount(mount: Mount) -> dict[str, Any]:
    options = ["bind", "nosuid", "nodev", "ro" if mount.read_only else "rw"]
    return {"hostPath": mount.host, "containerPath": mount.container, "options": options}


def simulated_additions(library_dir: Path, loader_dir: str, state: Path) -> Additions:
    """What the vendor's runtime would add, for a simulated driver: its libraries on the loader's path, and its state.

    `loader_dir` is the directory that the loader of the containers' architecture always searches.
    """
    inside = posixpath.join("/run/hami", state.name)
    libraries = tuple(
        Mount(container=posixpath.join(loader_dir, name), host=str(library_dir / name))
        for name in ("libcuda.so.1", "libnvidia-ml.so.1")
    )
    return Additions(
        env={"HAMI_SIM_STATE": inside},
        mounts=(*libraries, Mount(container=inside, host=str(state), read_only=False)),
    )
