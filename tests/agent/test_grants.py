"""From `Allocate` to a settled grant, over a real gRPC connection with a kubelet that keeps a real one's order."""

import json
import shutil
from typing import Any

import anyio
import pytest
from grpclib.exceptions import GRPCError

from hami.agent.answer import Strategy
from hami.model.names import PodKey
from hami.node.grants import State
from tests.agent.conftest import UUIDS, Rig, card, container, device, make_grants, pod

pytestmark = pytest.mark.anyio


def device_file(rig: Rig, name: str, where: str = "main") -> dict[str, Any]:
    """The environment that the grant's CDI device sets."""
    answer = rig.kubelet.answers[name, where]
    grant_id = answer.cdi_devices[0].name.removeprefix("hami.io/grant=")
    document = json.loads((rig.root / "cdi" / f"hami.io-grant-{grant_id}.json").read_text())
    assert document["devices"][0]["name"] == grant_id
    edits = document["devices"][0]["containerEdits"]
    return dict(entry.split("=", 1) for entry in edits["env"])


async def test_a_pod_gets_what_its_scheduler_assigned(rig: Rig) -> None:
    document = pod("a", assigned=card(1) + ";")
    rig.api.add(document)
    await rig.run(document)
    assert rig.limits("a") == [(UUIDS[1], 3000, 30)]
    environment = device_file(rig, "a")
    assert environment["NVIDIA_VISIBLE_DEVICES"] == UUIDS[1]
    assert environment["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
    assert rig.api.notes("a")["hami.io/bind-phase"] == "success"
    (grant,) = rig.grants.grants
    assert (rig.root / "hook/vgpu/containers/uid-a_main").resolve() == rig.store.region_dir(grant.id)
    assert rig.regions.made[grant.id].shares == grant.shares


async def test_nothing_is_open_before_the_owner_is_confirmed(rig: Rig) -> None:
    rig.kubelet.writes_checkpoint = False
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    await rig.kubelet.admit(document)
    assert rig.granted("a") is None
    rig.kubelet.write_checkpoint()
    await rig.kubelet.start_container(document, "main")
    assert rig.limits("a") == [(UUIDS[0], 3000, 30)]


async def test_without_a_checkpoint_the_pod_list_confirms(rig: Rig) -> None:
    rig.kubelet.writes_checkpoint = False
    document = pod("a", assigned=card(1) + ";")
    rig.api.add(document)
    await rig.run(document)
    assert rig.limits("a") == [(UUIDS[1], 3000, 30)]


async def test_a_plain_init_container_without_a_checkpoint_keeps_the_thought(rig: Rig) -> None:
    rig.kubelet.writes_checkpoint = False
    document = pod("a", container("main", 0), init=(container("setup"),), assigned=card(1) + ";;")
    rig.api.add(document)
    await rig.run(document)
    assert rig.limits("a", "setup") == [(UUIDS[1], 3000, 30)]


async def test_every_container_of_a_pod_has_its_own_limits(rig: Rig) -> None:
    document = pod(
        "a",
        container("one", memory=1000, cores=10),
        container("none", 0),
        container("two", 2, memory=2000, cores=20),
        init=(container("setup", memory=4000, cores=40), container("side", memory=500, restartPolicy="Always")),
        assigned=f"{card(0, 4000, 40)};{card(0, 500)};{card(1, 1000, 10)};;{card(0, 2000, 20)}{card(1, 2000, 20)};",
    )
    rig.api.add(document)
    await rig.run(document)
    assert rig.limits("a", "setup") == [(UUIDS[0], 4000, 40)]
    assert rig.limits("a", "side") == [(UUIDS[0], 500, 30)]
    assert rig.limits("a", "one") == [(UUIDS[1], 1000, 10)]
    assert rig.limits("a", "two") == [(UUIDS[0], 2000, 20), (UUIDS[1], 2000, 20)]
    assert [name for name, patch in rig.api.patches if patch == {"hami.io/bind-phase": "success"}] == ["a"]


async def test_pods_admitted_in_another_order_than_bound(rig: Rig) -> None:
    documents = [
        pod(
            f"p{i}",
            container("main", memory=100 + i, cores=i),
            assigned=card(i % 2, 100 + i, i) + ";",
            bind_time=1000 - i,
        )
        for i in range(8)
    ]
    for document in documents:
        rig.api.add(document)
    async with anyio.create_task_group() as tasks:
        for document in documents:
            tasks.start_soon(rig.run, document)
    for i in range(8):
        assert rig.limits(f"p{i}") == [(UUIDS[i % 2], 100 + i, i)]


async def test_a_pod_the_watch_has_not_shown_is_fetched(rig: Rig) -> None:
    document = pod("a", assigned=card(1) + ";")
    rig.api.add(document, shown=False)
    await rig.run(document)
    assert rig.limits("a") == [(UUIDS[1], 3000, 30)]


async def test_another_pod_of_the_same_name(rig: Rig) -> None:
    first = pod("a", assigned=card(0) + ";")
    rig.api.add(first)
    await rig.run(first)
    rig.kubelet.forget(first)
    rig.kubelet.ids.clear()
    second = pod("a", assigned=card(1, 700, 7) + ";")
    second["metadata"]["uid"] = "uid-a2"
    second["spec"]["containers"] = [container("main", memory=700, cores=7)]
    rig.api.add(second, shown=False)
    await rig.run(second)
    assert rig.limits("a") == [(UUIDS[1], 700, 7)]


async def test_a_wrong_thought_is_corrected_by_the_checkpoint(rig: Rig) -> None:
    """The kubelet's list cannot be had, so the pod bound first is thought to be the owner; it is not."""
    rig.kubelet.lists_pods = False
    rig.kubelet.pod_resources.unlink()
    early, late = (
        pod("early", assigned=card(0, 100, 1) + ";", bind_time=1),
        pod("late", assigned=card(1) + ";", bind_time=2),
    )
    early["spec"]["containers"] = [container("main", memory=100, cores=1)]
    rig.api.add(early)
    rig.api.add(late)
    await rig.run(late)
    assert rig.limits("late") == [(UUIDS[1], 3000, 30)]
    assert device_file(rig, "late")["NVIDIA_VISIBLE_DEVICES"] == UUIDS[1]
    await rig.run(early)
    assert rig.limits("early") == [(UUIDS[0], 100, 1)]


async def test_a_pod_without_assignment_is_fitted_here(rig: Rig) -> None:
    document = pod("bare", container("main", memory=5000, cores=50))
    rig.api.add(document)
    await rig.run(document)
    ((uuid, memory, cores),) = rig.limits("bare")
    assert (memory, cores) == (5000, 50)
    notes = rig.api.notes("bare")
    assert notes["hami.io/vgpu-devices-allocated"] == f"{uuid},NVIDIA,5000,50:;"
    assert notes["hami.io/vgpu-node"] == "node-1"
    assert notes["hami.io/bind-phase"] == "success"


async def test_a_pod_without_room_is_refused_and_starts_when_room_appears(rig: Rig) -> None:
    holders = [pod(f"h{i}", container("main", memory=16000), assigned=card(i, 16000) + ";") for i in range(2)]
    for document in holders:
        rig.api.add(document)
        await rig.run(document)
    bare = pod("bare", container("main", memory=5000))
    rig.api.add(bare)
    await rig.kubelet.admit(bare)
    for _ in range(2):
        with pytest.raises(GRPCError, match="short of memory"):
            await rig.kubelet.start_container(bare, "main")
    assert rig.granted("bare") is None
    assert [(name, reason) for name, reason, _ in rig.api.events] == [("bare", "AllocationRefused")]
    assert rig.api.notes("bare")["hami.io/bind-phase"] == "failed"
    rig.api.delete(holders[1])
    rig.kubelet.forget(holders[1])
    await rig.kubelet.start_container(bare, "main")
    assert rig.limits("bare") == [(UUIDS[1], 5000, 30)]
    assert rig.api.notes("bare")["hami.io/bind-phase"] == "success"


async def test_two_pods_promised_the_same_memory(rig: Rig) -> None:
    """A mistake of schedulers: who was bound first keeps its device, the other moves to where there is room."""
    first = pod("first", container("main", memory=10000), assigned=card(0, 10000) + ";", bind_time=10)
    second = pod("second", container("main", memory=10000), assigned=card(0, 10000) + ";", bind_time=20)
    rig.api.add(first)
    rig.api.add(second)
    await rig.run(second)
    await rig.run(first)
    assert rig.limits("first")[0][0] == UUIDS[0]
    assert rig.limits("second")[0][0] == UUIDS[1]
    assert rig.api.notes("second")["hami.io/vgpu-devices-allocated"] == card(1, 10000) + ";"


async def test_an_assignment_to_a_device_that_is_not_here(rig: Rig) -> None:
    document = pod("forged", assigned="GPU-elsewhere,NVIDIA,3000,30:;")
    rig.api.add(document)
    await rig.run(document)
    ((uuid, memory, cores),) = rig.limits("forged")
    assert uuid in UUIDS[:2]
    assert (memory, cores) == (3000, 30)


async def test_a_pod_whose_end_the_watch_has_not_shown_counts_as_long_as_the_server_has_it(rig: Rig) -> None:
    old = pod("old", container("main", memory=16000), assigned=card(0, 16000) + ";", bind_time=1)
    blocker = pod("blocker", container("main", memory=16000), assigned=card(1, 16000) + ";", bind_time=2)
    for document in (old, blocker):
        rig.api.add(document)
        await rig.run(document)
    rig.kubelet.forget(old)
    new = pod("new", container("main", memory=16000), assigned=card(0, 16000) + ";", bind_time=3)
    rig.api.add(new)
    await rig.kubelet.admit(new)
    with pytest.raises(GRPCError, match="short of memory"):
        await rig.kubelet.start_container(new, "main")
    del rig.api.documents[PodKey("default", "old")]
    await rig.kubelet.start_container(new, "main")
    assert rig.limits("new") == [(UUIDS[0], 16000, 30)]


async def test_a_force_deleted_pod_counts_while_its_process_lives(rig: Rig) -> None:
    old = pod("old", container("main", memory=16000), assigned=card(0, 16000) + ";", bind_time=1)
    blocker = pod("blocker", container("main", memory=16000), assigned=card(1, 16000) + ";", bind_time=2)
    for document in (old, blocker):
        rig.api.add(document)
        await rig.run(document)
    grant = next(g for g in rig.grants.grants if g.holder and g.holder.key.name == "old")
    rig.regions.living.add(grant.id)
    rig.api.delete(old)
    rig.kubelet.forget(old)
    rig.now[0] += 100
    await rig.grants.sweep()
    new = pod("new", container("main", memory=16000), assigned=card(0, 16000) + ";", bind_time=3)
    rig.api.add(new)
    await rig.kubelet.admit(new)
    with pytest.raises(GRPCError, match="short of memory"):
        await rig.kubelet.start_container(new, "main")
    rig.regions.living.clear()
    await rig.kubelet.start_container(new, "main")
    assert rig.limits("new") == [(UUIDS[0], 16000, 30)]


async def test_a_malformed_request_is_refused_with_the_field_named(rig: Rig) -> None:
    bad = pod("bad", container("main", memory=None))
    bad["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpumem"] = "-5"
    good = pod("good", assigned=card(0) + ";")
    rig.api.add(bad)
    rig.api.add(good)
    await rig.kubelet.admit(bad)
    with pytest.raises(GRPCError, match=r"spec.containers\[0\].resources.limits\[nvidia.com/gpumem\]"):
        await rig.kubelet.start_container(bad, "main")
    await rig.run(good)
    assert rig.limits("good") == [(UUIDS[0], 3000, 30)]
    assert len(rig.api.events) == 1


async def test_a_static_pod_is_known_by_its_configuration_hash(rig: Rig) -> None:
    document = pod("static-node-1", notes={"kubernetes.io/config.hash": "abc123"})
    rig.api.add(document)
    await rig.run(document)
    assert rig.limits("static-node-1")[0][1:] == (3000, 30)


async def test_a_restarted_container_keeps_its_grant(rig: Rig) -> None:
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    await rig.run(document)
    before = rig.grants.grants
    await rig.kubelet.start_container(document, "main")
    assert rig.grants.grants == before


@pytest.mark.parametrize("strategy", ["cdi", "env"])
async def test_a_grant_lost_on_disk_is_made_again(rig: Rig, strategy: Strategy) -> None:
    """The kubelet mounts the paths of the answer it stored, so they must be there for as long as its pod is."""
    document = pod("a", assigned=card(1) + ";")
    rig.api.add(document)
    await rig.run(document)
    before = rig.limits("a")
    shutil.rmtree(rig.root / "hook/vgpu/grants")
    rig.settling.cancel()
    successor, _ = make_grants(
        rig.root, rig.podlist, rig.kubelet, rig.api, rig.inventory, rig.regions, strategy, rig.now
    )
    await successor.prepare(rig.kubelet.ids["a", "main"])
    assert rig.limits("a") == before


async def test_unknown_ids_do_not_start(rig: Rig) -> None:
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    await rig.run(document)
    rig.kubelet.ids["a", "main"] = (f"{UUIDS[1]}-7",)
    with pytest.raises(GRPCError, match="no grant"):
        await rig.kubelet.start_container(document, "main")


async def test_grants_of_gone_pods_are_swept(rig: Rig) -> None:
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    await rig.run(document)
    rig.api.delete(document)
    rig.kubelet.forget(document)
    await rig.grants.sweep()
    assert [grant.state for grant in rig.grants.grants] == [State.SETTLED], (
        "too young: the watch may be behind the kubelet"
    )
    rig.now[0] += 31
    await rig.grants.sweep()
    assert [grant.state for grant in rig.grants.grants] == []
    assert list((rig.root / "hook/vgpu/grants").iterdir()) == []
    assert list((rig.root / "hook/vgpu/containers").iterdir()) == []
    assert list((rig.root / "cdi").iterdir()) == []


async def test_an_ended_pod_leaves_its_grant(rig: Rig) -> None:
    """A finished Job's pods stay in the API for days; a terminal phase is final."""
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    await rig.run(document)
    rig.now[0] += 31
    rig.kubelet.forget(document)
    await rig.grants.sweep()
    assert [grant.state for grant in rig.grants.grants] == [State.SETTLED], "its containers may start again"
    document["status"]["phase"] = "Succeeded"
    rig.api.add(document)
    await rig.grants.sweep()
    assert [grant.state for grant in rig.grants.grants] == []


async def test_a_grant_of_a_pod_nobody_knows_waits_for_its_start(rig: Rig) -> None:
    """The API server is away for longer than a grant without an owner is kept; its image is still being pulled."""
    document = pod("a", assigned=card(0) + ";")
    await rig.kubelet.admit(document)
    rig.now[0] += 1000
    await rig.grants.sweep()
    with pytest.raises(GRPCError, match="does not say yet"):
        await rig.kubelet.start_container(document, "main")
    rig.api.add(document, shown=False)
    await rig.kubelet.start_container(document, "main")
    assert rig.limits("a") == [(UUIDS[0], 3000, 30)]


async def test_health_reaches_the_kubelet(rig: Rig) -> None:
    changed = rig.kubelet.listed_changed
    rig.devices.set((device(0, healthy=False), device(1)))
    with anyio.fail_after(5):
        await changed.wait()
    assert {health for i, health in rig.kubelet.devices.items() if i.startswith(UUIDS[0])} == {"Unhealthy"}
    assert {health for i, health in rig.kubelet.devices.items() if i.startswith(UUIDS[1])} == {"Healthy"}
    assert len(rig.kubelet.devices) == 20


async def test_a_restarted_kubelet_is_registered_with_at_once(rig: Rig) -> None:
    assert rig.kubelet.options is not None
    assert rig.kubelet.options.pre_start_required
    for _ in range(3):
        await rig.kubelet.restart()
        started = anyio.current_time()
        with anyio.fail_after(5):
            await rig.kubelet.registered.wait()
        assert anyio.current_time() - started < 0.5
    assert len(rig.kubelet.registrations) == 4
    document = pod("a", assigned=card(0) + ";")
    rig.api.add(document)
    with anyio.fail_after(5):
        while len(rig.kubelet.devices) != 20:
            await rig.kubelet.listed_changed.wait()
    await rig.run(document)
    assert rig.limits("a") == [(UUIDS[0], 3000, 30)]


@pytest.mark.parametrize("strategy", ["env"])
class TestEnvironmentStrategy:
    """The answer itself names the devices, so a mistaken thought must be repaired by moving assignments."""

    async def test_the_answer_names_the_devices(self, rig: Rig, strategy: Strategy) -> None:
        document = pod("a", assigned=card(1) + ";")
        rig.api.add(document)
        await rig.run(document)
        answer = rig.kubelet.answers["a", "main"]
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == UUIDS[1]
        assert answer.envs["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
        assert not answer.cdi_devices
        assert "/etc/ld.so.preload" in {mount.container_path for mount in answer.mounts}
        assert rig.limits("a") == [(UUIDS[1], 3000, 30)]

    async def test_a_pod_without_assignment(self, rig: Rig, strategy: Strategy) -> None:
        document = pod("bare")
        rig.api.add(document)
        await rig.run(document)
        answer = rig.kubelet.answers["bare", "main"]
        assert [answer.envs["NVIDIA_VISIBLE_DEVICES"]] == [uuid for uuid, _, _ in rig.limits("bare")]

    async def test_mistaken_pods_exchange_devices(self, rig: Rig, strategy: Strategy) -> None:
        rig.kubelet.lists_pods = False
        rig.kubelet.pod_resources.unlink()
        early = pod("early", assigned=card(0) + ";", bind_time=1)
        late = pod("late", assigned=card(1) + ";", bind_time=2)
        rig.api.add(early)
        rig.api.add(late)
        await rig.run(late)
        await rig.run(early)
        for name, uuid in (("late", UUIDS[0]), ("early", UUIDS[1])):
            assert rig.kubelet.answers[name, "main"].envs["NVIDIA_VISIBLE_DEVICES"] == uuid
            assert rig.limits(name) == [(uuid, 3000, 30)]
            assert rig.api.notes(name)["hami.io/vgpu-devices-allocated"].startswith(uuid)

    async def test_a_mistaken_pod_that_does_not_fit_is_refused(self, rig: Rig, strategy: Strategy) -> None:
        rig.kubelet.lists_pods = False
        rig.kubelet.pod_resources.unlink()
        early = pod("early", assigned=card(0) + ";", bind_time=1)
        late = pod("late", assigned=card(1) + ";", bind_time=2, notes={"nvidia.com/use-gpuuuid": UUIDS[1]})
        rig.api.add(early)
        rig.api.add(late)
        await rig.kubelet.admit(late)
        with pytest.raises(GRPCError, match="meant for default/early"):
            await rig.kubelet.start_container(late, "main")
        await rig.run(early)
        assert rig.limits("early") == [(UUIDS[0], 3000, 30)]


async def test_states_survive_the_agent(rig: Rig) -> None:
    """What an agent that no longer runs left on disk is all its successor needs."""
    settled, waiting = pod("settled", assigned=card(0) + ";"), pod("waiting", assigned=card(1) + ";")
    rig.api.add(settled)
    rig.api.add(waiting)
    await rig.run(settled)
    rig.kubelet.writes_checkpoint = False
    await rig.kubelet.admit(waiting)
    rig.settling.cancel()
    successor, store = make_grants(
        rig.root, rig.podlist, rig.kubelet, rig.api, rig.inventory, rig.regions, "cdi", rig.now
    )
    assert store.problems == []
    assert {grant.state for grant in successor.grants} == {State.SETTLED, State.TENTATIVE}
    rig.kubelet.write_checkpoint()
    await successor.prepare(rig.kubelet.ids["waiting", "main"])
    await successor.prepare(rig.kubelet.ids["settled", "main"])
    assert rig.limits("waiting") == [(UUIDS[1], 3000, 30)]
