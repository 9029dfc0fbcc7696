"""What a granted program is given: its grant and region as files, and the environment in which programs use them."""

import os

from hami.alloc.grant import owner_env
from hami.local.directory import files_of
from hami.local.entries import Entry
from hami.local.lock import LocalStateError
from hami.local.machine import Machine
from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from hami.node._region import Region


def prepare(me: Entry, machine: Machine) -> dict[str, str]:
    """Write the program's grant and region; the environment that makes its processes use them."""
    files = files_of(machine.directory, me)
    try:
        files.mkdir()
    except FileExistsError as error:
        raise LocalStateError(f"{files}: is another user's; root can remove it") from error
    # Others may see whether the region is in use, not change it.
    files.chmod(0o711)
    region = files / "region.cache"
    Region.create(
        str(region),
        [share.uuid for share in me.shares],
        [share.memory_mib << 20 for share in me.shares],
        [share.cores for share in me.shares],
    ).close()
    region.chmod(0o644)
    grant = files / "grant"
    grant.write_text(
        write_grant(
            GrantFile(
                devices=tuple(
                    GrantDevice(uuid=share.uuid, memory_mib=share.memory_mib, cores=share.cores, enforced_by="library")
                    for share in me.shares
                ),
                policy=machine.vendor.core_policy,
                priority=1,
                oversubscribe=False,
                region=str(region),
            )
        )
    )
    preload = " ".join(part for part in (str(machine.library), os.environ.get("LD_PRELOAD", "")) if part)
    return {
        **machine.additions,
        "LD_PRELOAD": preload,
        "HAMI_GRANT": str(grant),
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
        "CUDA_VISIBLE_DEVICES": ",".join(share.uuid for share in me.shares),
        **owner_env(me.shares, machine.vendor, visible=False),
    }
