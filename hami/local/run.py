"""`hami run`: grant a program its part of this machine's devices, then become that program.

The process that asks is the process that runs (exec), so signals, exit code and terminal are the program's own and
nothing of ours stays behind. Limits hold for programs started through here; others are not seen.
"""

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hami.alloc.explain import in_words
from hami.alloc.grant import owner_env
from hami.alloc.ledger import Ledger
from hami.alloc.place import place_on
from hami.local import entries
from hami.local.entries import Entry
from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Memory,
    Mib,
    Need,
    NodeRefusal,
    Percent,
    PodRecord,
    PodRequest,
    Role,
)
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import NodeName, PodKey, PodUid, WireError
from hami.model.vendor import Registry, Vendor
from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from hami.node._region import Region

THIS_MACHINE: Final = NodeName("local")
REFUSED: Final = 75
"""Exit code of a refusal (EX_TEMPFAIL of sysexits.h: try again later)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the command line asks for."""

    gpus: int
    memory: Memory
    cores: int
    policy: str


def read_ask(*, gpus: int, gpumem: int | None, gpumem_percentage: int | None, gpucores: int | None, policy: str) -> Ask:
    """The options as a request; WireError names the option that cannot be met by any machine.

    As in a pod: no memory asked means the whole device, and a whole device without a core limit means alone on it.
    """
    if gpus < 1:
        raise WireError("--gpus", "an integer of at least 1", gpus)
    if gpumem is not None and gpumem_percentage is not None:
        raise WireError("--gpumem-percentage", "absent when --gpumem is given", gpumem_percentage)
    if gpumem is not None and gpumem < 1:
        raise WireError("--gpumem", "MiB, an integer of at least 1", gpumem)
    if gpumem_percentage is not None and not 1 <= gpumem_percentage <= 100:
        raise WireError("--gpumem-percentage", "an integer from 1 to 100", gpumem_percentage)
    if gpucores is not None and not 0 <= gpucores <= 100:
        raise WireError("--gpucores", "a percentage from 0 to 100", gpucores)
    if policy not in ("binpack", "spread"):
        raise WireError("--policy", "binpack or spread", policy)
    memory: Memory = Mib(gpumem) if gpumem is not None else Percent(gpumem_percentage or 100)
    whole = memory == Percent(100)
    return Ask(gpus=gpus, memory=memory, cores=gpucores if gpucores is not None else 100 if whole else 0, policy=policy)


def decide(
    ask: Ask, inventory: NodeInventory, running: Sequence[Entry], me: str, registry: Registry
) -> Assignment | NodeRefusal:
    """Where the program's shares would lie beside those running, by the same engine that places pods."""
    ledger = Ledger(registry)
    ledger.put_node(NodeRecord(name=THIS_MACHINE, inventories=(inventory,)))
    for entry in running:
        ledger.put_pod(
            PodRecord(
                uid=PodUid(entry.name),
                key=PodKey("local", entry.name),
                node=THIS_MACHINE,
                roles=(Role.APP,),
                segments={inventory.vendor: (entry.shares,)},
            )
        )
    need = Need(vendor=inventory.vendor, count=ask.gpus, memory=ask.memory, cores=ask.cores)
    request = PodRequest(
        uid=PodUid(me),
        key=PodKey("local", me),
        containers=(ContainerNeed(name="program", role=Role.APP, needs=(need,)),),
    )
    return place_on(ledger, request, THIS_MACHINE, card_policy=ask.policy)


def state_for(description: Path, directory: Path) -> Path:
    """Where the simulated driver's state of this description lies: one for all programs of one user that name it."""
    digest = hashlib.sha256(description.read_bytes()).hexdigest()[:16]
    return directory / f"simulated-{os.getuid()}-{digest}.state"


def run(
    command: Sequence[str],
    ask: Ask,
    inventory: NodeInventory,
    vendor: Vendor,
    *,
    directory: Path,
    library: Path,
    additions: Mapping[str, str],
) -> int:
    """Decide, write the grant, then exec `command`; returns an exit code only when that did not happen.

    `library` is the interposer, `additions` the environment a simulated driver needs.
    """
    ticks = entries.start_ticks(os.getpid())
    assert ticks is not None, "this process lives"
    me = Entry(pid=os.getpid(), start_ticks=ticks, uid=os.getuid(), command=shlex.join(command), shares=())
    with entries.locked(directory):
        running, problems = entries.living(directory)
        for problem in problems:
            print(f"hami run: ignored: {problem}", file=sys.stderr)
        verdict = decide(ask, inventory, running, me.name, Registry((vendor,)))
        if isinstance(verdict, NodeRefusal):
            print(f"hami run: refused: {in_words([verdict]).partition(': ')[2]}", file=sys.stderr)
            return REFUSED
        me = replace(me, shares=verdict.segments[inventory.vendor][0])
        environment = {**os.environ, **additions, **_prepare(me, vendor, directory, library)}
        entries.remember(directory, me)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        entries.forget(directory, me)
        print(f"hami run: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _prepare(me: Entry, vendor: Vendor, directory: Path, library: Path) -> dict[str, str]:
    """Write the program's grant and region; the environment that makes its processes use them."""
    files = entries.files_of(directory, me)
    files.mkdir(mode=0o700)
    region = files / "region.cache"
    Region.create(
        str(region),
        [share.uuid for share in me.shares],
        [share.memory_mib << 20 for share in me.shares],
        [share.cores for share in me.shares],
    ).close()
    grant = files / "grant"
    grant.write_text(
        write_grant(
            GrantFile(
                devices=tuple(
                    GrantDevice(uuid=share.uuid, memory_mib=share.memory_mib, cores=share.cores, enforced_by="library")
                    for share in me.shares
                ),
                policy=vendor.core_policy,
                priority=1,
                oversubscribe=False,
                region=str(region),
            )
        )
    )
    preload = " ".join(part for part in (str(library), os.environ.get("LD_PRELOAD", "")) if part)
    return {
        "LD_PRELOAD": preload,
        "HAMI_GRANT": str(grant),
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
        "CUDA_VISIBLE_DEVICES": ",".join(share.uuid for share in me.shares),
        **owner_env(me.shares, vendor, visible=False),
    }
