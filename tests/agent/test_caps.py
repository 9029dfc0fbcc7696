"""The driver's caps over the simulated driver: found out, set, watched, put back and let go, with a real program."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hami.agent.caps import ContainerCaps
from hami.agent.guard import CHANGED, Guard
from hami.model.claim import Share
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.node.cgroups import Cgroups
from hami.node.driver_cap import DriverCap
from hami.node.grants import Grant, Holder, State
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY
from tests.interpose.simulation import A100, Simulation
from tests.interpose.test_sim_limits import NEW
from tests.node.simulated_nvml import driver
from tests.node.test_cgroups import GRANT, UID, container, group

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare to mount as a runtime does"
    ),
]


class Node:
    """A machine whose driver can cap, its caps as the agent keeps them, and one granted container."""

    def __init__(self, directory: Path, **description: Any) -> None:
        self.directory = directory
        self.root = directory / "cgroup"
        self.root.mkdir()
        self.machine = Simulation(directory, **{"driver": NEW, "cgroups": str(self.root), **description})
        self.caps = self.agent()
        self.grant = Grant(
            id=GRANT,
            device_ids=frozenset({"x"}),
            made_unix=0,
            state=State.SETTLED,
            holder=Holder(pod_uid=UID, key=PodKey("default", "pod"), container="main", position=0, containers=1),
            shares=tuple(self.share(uuid, 1000) for uuid in self.machine.uuids),
        )

    def agent(self, *, scaled: bool = False) -> ContainerCaps:
        """The caps of an agent that starts now."""
        return ContainerCaps(driver=DriverCap(self.root, played=True), groups=Cgroups(self.root), scaled=scaled)

    @staticmethod
    def share(uuid: str, memory_mib: int) -> Share:
        return Share(uuid=DeviceUuid(uuid), kind="NVIDIA", memory_mib=memory_mib, cores=0)

    @property
    def leaf(self) -> Path:
        return self.root / f"kubepods/pod{UID}/main"

    def hard(self, index: int = 0) -> int | None:
        state = self.caps.driver.get(DeviceUuid(self.machine.uuids[index]), self.leaf)
        return None if state is None else state.hard


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with driver(made.machine):
        yield made


class TestOffered:
    @pytest.mark.parametrize(
        ("description", "offered"),
        [
            pytest.param({}, True, id="615"),
            pytest.param({"driver": {"version": "580.65", "cuda": "13.0"}}, False, id="older driver"),
            pytest.param({"cgroups": None}, False, id="driver without the call's support"),
            pytest.param({"devices": [{"model": A100, "count": 2, "mig": "enabled"}]}, False, id="MIG"),
            pytest.param(
                {"faults": [{"call": "nvmlDeviceGetMemoryLimits_v1", "result": "NVML_ERROR_UNKNOWN"}]},
                False,
                id="an answer that says nothing",
            ),
        ],
    )
    def test_only_after_the_driver_has_said_so(self, tmp_path: Path, description: Any, offered: bool) -> None:
        node = Node(tmp_path, **description)
        with driver(node.machine):
            assert node.caps.can_hold(node.grant.shares) is offered
            assert node.caps.can_hold(node.grant.shares) is offered

    def test_only_on_cgroup_v2(self, node: Node) -> None:
        assert not DriverCap(node.root).offered(DeviceUuid(node.machine.uuids[0]))

    def test_what_a_cap_cannot_say(self, node: Node) -> None:
        uuid = node.machine.uuids[0]
        assert node.caps.can_hold([node.share(uuid, 4096)])
        assert not node.caps.can_hold([node.share(uuid, 4097)]), "more than there is"
        assert not node.caps.can_hold([node.share(uuid, 0)]), "no limit"
        assert not node.caps.can_hold([])
        assert not node.agent(scaled=True).can_hold([node.share(uuid, 100)]), "more is given out than there is"


class TestKeeping:
    def test_an_unhooked_program_is_stopped_at_its_share(self, node: Node) -> None:
        assert not node.caps.keep(node.grant).held, "it does not run yet"
        with container(node.directory, GRANT) as pid, node.machine.client() as program:
            group(node.root, f"kubepods/pod{UID}/main", pid, program.process.pid)
            kept = node.caps.keep(node.grant)
            assert (kept.held, kept.changed) == (True, ())
            assert program.use() == 0
            assert program.alloc(901 * MIB)[0] == OUT_OF_MEMORY
            assert program.alloc(900 * MIB)[0] == 0
            assert node.caps.used(node.grant) == {node.machine.uuids[0]: 1000 * MIB, node.machine.uuids[1]: 0}

    def test_a_changed_cap_is_put_back_and_told(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert node.caps.keep(node.grant).held
            node.caps.driver.put(DeviceUuid(node.machine.uuids[1]), node.leaf, 2000 * MIB)
            assert node.caps.keep(node.grant).changed == (node.machine.uuids[1],)
            assert node.hard(1) == 1000 * MIB
            node.caps.driver.clear(DeviceUuid(node.machine.uuids[0]), node.leaf)
            assert node.caps.keep(node.grant).changed == (node.machine.uuids[0],)
            assert node.caps.keep(node.grant).changed == ()

    def test_another_amount_is_no_tampering(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert node.caps.keep(node.grant).held
            less = replace(node.grant, shares=tuple(node.share(uuid, 500) for uuid in node.machine.uuids))
            assert node.caps.keep(less).changed == ()
            assert node.hard() == 500 * MIB

    def test_the_vendors_hook_was_first(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            for uuid in node.machine.uuids:
                node.caps.driver.put(DeviceUuid(uuid), node.leaf, 1000 * MIB)
            assert node.caps.keep(node.grant).held
            node.caps.driver.clear(DeviceUuid(node.machine.uuids[0]), node.leaf)
            assert node.caps.keep(node.grant).changed == (node.machine.uuids[0],)

    def test_an_agent_that_starts_again_finds_the_caps(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert node.caps.keep(node.grant).held
            kept = node.agent().keep(node.grant)
            assert (kept.held, kept.changed) == (True, ())

    def test_a_container_that_starts_again_is_capped_again(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert node.caps.keep(node.grant).held
        shutil.rmtree(node.leaf)
        assert not node.caps.keep(node.grant).held
        with container(node.directory, GRANT) as pid:
            again = group(node.root, f"kubepods/pod{UID}/again", pid)
            kept = node.caps.keep(node.grant)
            assert (kept.held, kept.changed) == (True, ())
            state = node.caps.driver.get(DeviceUuid(node.machine.uuids[0]), again)
            assert state is not None
            assert state.hard == 1000 * MIB

    def test_a_driver_that_refuses_leaves_it_to_the_library(self, tmp_path: Path) -> None:
        fault = {"call": "nvmlDeviceSetMemoryLimits_v1", "result": "NVML_ERROR_NO_PERMISSION"}
        node = Node(tmp_path, faults=[fault])
        with driver(node.machine), container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert not node.caps.keep(node.grant).held

    def test_what_is_over_is_let_go(self, node: Node) -> None:
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            assert node.caps.keep(node.grant).held
            node.caps.over(node.grant)
            assert node.hard() is None


class Regions:
    """Regions in which somebody changes what the test says."""

    def __init__(self) -> None:
        self.changed = ""

    def reassert(self, grant: Grant) -> str:
        return self.changed


class Grants:
    """The grants, and who is said to hold them."""

    def __init__(self, *grants: Grant) -> None:
        self.grants = grants
        self.told: list[tuple[str, str]] = []

    async def enforced(self, grant_id: str, enforcer: str) -> None:
        self.told.append((grant_id, enforcer))
        self.grants = tuple(replace(g, enforced_by=enforcer) if g.id == grant_id else g for g in self.grants)


class TestGuard:
    async def test_the_library_is_told_once_that_the_driver_holds_the_cap(self, node: Node) -> None:
        events: list[Any] = []
        grants, regions = Grants(node.grant), Regions()
        guard = Guard(grants, regions, node.caps, lambda *event: events.append(event))
        await guard.look()
        assert grants.told == []
        with container(node.directory, GRANT) as pid:
            group(node.root, f"kubepods/pod{UID}/main", pid)
            await guard.look()
            await guard.look()
            assert grants.told == [(GRANT, "driver")]
            assert events == []
            grants.grants = ()
            await guard.look()
            assert node.hard() is None, "its pod is gone"

    async def test_a_container_that_goes_on_changing_its_limits_is_told_once(self, node: Node) -> None:
        events: list[tuple[PodKey, PodUid, str, str]] = []
        grants, regions = Grants(node.grant), Regions()
        guard = Guard(grants, regions, None, lambda *event: events.append(event))
        regions.changed = "the limits in the shared region"
        await guard.look()
        await guard.look()
        [(key, uid, reason, message)] = events
        assert (key.name, uid, reason) == ("pod", UID, CHANGED)
        assert message == (
            "somebody changed the limits in the shared region of container main; it is "
            f"1000 MiB of {node.machine.uuids[0]}, 1000 MiB of {node.machine.uuids[1]} again"
        )
        regions.changed = "the file of the shared region"
        await guard.look()
        assert len(events) == 2, "that is another matter"

    async def test_grants_that_are_not_settled_are_left_alone(self, node: Node) -> None:
        regions = Regions()
        regions.changed = "anything"
        events: list[Any] = []
        waiting = replace(node.grant, state=State.TENTATIVE)
        await Guard(Grants(waiting), regions, node.caps, lambda *event: events.append(event)).look()
        assert events == []
