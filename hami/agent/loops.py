"""What the agent does over and over: follow the pods, ask the driver, settle, sweep. Each runs till it is cancelled."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio

from hami.agent.checkpoint import FILE_NAME
from hami.agent.grants import Grants
from hami.agent.inherited import Inherited, PodNames
from hami.agent.mig import MigInstances
from hami.agent.pods import NodePods
from hami.agent.static_mig import StaticPlugins
from hami.kube.client import Kube
from hami.kube.resources import PODS
from hami.kube.watch import Deleted, Listed, watch
from hami.model.device import NodeInventory
from hami.model.names import NodeName, PodUid
from hami.node import mig as mig_driver
from hami.node.notify import DirectoryWatch
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import NvidiaProbe

log = logging.getLogger(__name__)

PROBE_EVERY_S: Final = 5.0
EVENT_WAIT_S: Final = 1.0
"""How long one wait for a driver event lasts: a shutdown waits no longer than this."""
SWEEP_EVERY_S: Final = 5.0
RECHECK_S: Final = 1.0


async def follow_pods(kube: Kube, node: NodeName, pods: NodePods, grants: Grants, listed: anyio.Event) -> None:
    """Fold the node's pods, for ever; `listed` is set when all have been seen."""
    async for event in watch(kube, PODS, field_selector=f"spec.nodeName={node}"):
        match event:
            case Listed():
                log.info("the pods of node %s are listed", node)
                grants.observe_all()
                listed.set()
            case Deleted(document):
                pods.drop(PodUid(str(document.get("metadata", {}).get("uid") or "")))
            case _:
                pod = pods.put(event.object)
                if pod is not None:
                    grants.observe(pod)


def look(probe: NvidiaProbe, mig: MigInstances, grants: Grants) -> NodeInventory:
    """What the node offers now. Cards that belong into MIG mode are put into it first, unless a pod has been given them
    as they are. Raises ProbeError."""
    given = {share.uuid for grant in grants.grants if not grant.mig for share in grant.shares}
    for uuid in probe.to_cut():
        why = "pods still share it" if uuid in given else mig_driver.enable(uuid)
        if why:
            log.warning("device %s cannot be put into MIG mode now: %s", uuid, why)
        else:
            log.info("device %s is in MIG mode now", uuid)
    return mig.offered(probe.inventory())


async def probe(
    probe: NvidiaProbe,
    look: Callable[[], NodeInventory],
    found: Callable[[NodeInventory], None],
    static: StaticPlugins,
) -> None:
    """Ask the driver every few seconds, and at once after an event."""
    while True:
        try:
            found(await anyio.to_thread.run_sync(look))
            static.set(await anyio.to_thread.run_sync(probe.mixed))
            until = anyio.current_time() + PROBE_EVERY_S
            while anyio.current_time() < until:
                if await anyio.to_thread.run_sync(probe.wait, EVENT_WAIT_S, abandon_on_cancel=True):
                    break
        except ProbeError as error:
            log.error("the driver cannot be asked: %s", error)
            await anyio.sleep(PROBE_EVERY_S)


async def settle(directory: Path, grants: Grants) -> None:
    """Settle whenever the kubelet has written its checkpoint."""
    path = anyio.Path(directory / FILE_NAME)
    seen: tuple[int, int] | None = None
    with DirectoryWatch(directory) as changes:
        while True:
            try:
                stat = await path.stat()
                now = stat.st_ino, stat.st_mtime_ns
            except FileNotFoundError:
                now = None
            if now != seen:
                seen = now
                await grants.settle_confirmed()
            else:
                await changes.wait(RECHECK_S)


async def sweep(grants: Grants, pods_listed: anyio.Event, pods: NodePods, left: Inherited) -> None:
    """Remove what is over; not before all pods were seen, because a starting kubelet lists none."""
    await pods_listed.wait()
    names = PodNames(left.tree)
    while True:
        await anyio.sleep(SWEEP_EVERY_S)
        await grants.sweep()
        await grants.sweep_places()
        try:
            names.write(left.key)
        except OSError as error:
            log.error("the names of pods cannot be written: %s", error)
        known = {uid for pod in pods for uid in (pod.uid, pod.kubelet_uid)}
        await anyio.to_thread.run_sync(left.sweep, known, time.time())
