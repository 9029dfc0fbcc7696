"""Pods of several containers: which device each gets, and what the pod holds in each phase of its life."""

from dataclasses import replace

from tests.cluster.harness.api import Api
from tests.cluster.harness.services import Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import cards, held
from tests.cluster.pods import CARD_POLICY, Namespace, allocation, container, pod
from tests.cluster.probe import assert_sees_its_own, look

USE_UUID = "nvidia.com/use-gpuuuid"


def wait_held(services: Services, uuid: str, memory_mib: int, cores: int, sharers: int, within_s: float = 15) -> None:
    """The scheduler's own account of a device comes to these amounts."""
    want = (memory_mib, cores, sharers)
    eventually(f"{uuid} held {want}", lambda: held(services.scheduler_metrics(), uuid) == want, within_s)


def test_two_containers_each_have_their_own(space: Namespace, services: Services) -> None:
    one, two = container("one", look(), gpu=1, gpumem=1100, gpucores=10), container("two", look(), gpu=1, gpumem=2200)
    document = space.run(pod("pair", one, container("plain"), two, annotations={CARD_POLICY: "binpack"}))
    (first,), none, (second,) = allocation(document)
    assert none == []
    assert (first.memory_mib, first.cores) == (1100, 10)
    assert (second.memory_mib, second.cores) == (2200, 0)
    assert first.uuid == second.uuid, "packed on one device"
    assert_sees_its_own(space, document)
    wait_held(services, first.uuid, 3300, 10, 2)
    space.delete("pair")
    wait_held(services, first.uuid, 0, 0, 0)


def test_a_pod_with_two_devices(space: Namespace, services: Services) -> None:
    document = space.run(pod("two", container("main", look(), gpu=2, gpumem=1300, gpucores=15)))
    ((one, two),) = allocation(document)
    assert one.uuid != two.uuid
    assert replace(one, uuid=two.uuid) == two
    assert_sees_its_own(space, document)
    for card in (one, two):
        wait_held(services, card.uuid, 1300, 15, 1)
    space.delete("two")
    for card in (one, two):
        wait_held(services, card.uuid, 0, 0, 0)


def test_an_init_container_is_counted_until_it_has_ended(space: Namespace, api: Api, services: Services) -> None:
    device = next(card for card in cards(api) if "A100" in card.model)
    # It ends when the test removes what it waits for.
    waits = "gpuprobe info; while [ ! -e /signal/go ]; do sleep 0.2; done"
    mount = {"volumeMounts": [{"name": "signal", "mountPath": "/signal"}]}
    first = {**container("first", waits, gpu=1, gpumem=4000, gpucores=40), **mount}
    body = pod(
        "phases",
        container("main", look(), gpu=1, gpumem=1500, gpucores=10),
        container("beside", look(), gpu=1, gpumem=500),
        init=[first],
        annotations={USE_UUID: device.uuid},
        volumes=[{"name": "signal", "hostPath": {"path": str(services.signals(space.name))}}],
    )
    space.create(body)
    space.wait_line("phases", '"info"', "first")
    # The peak: the init container alone is more than the other two together; cores and sharers likewise by maximum.
    wait_held(services, device.uuid, 4000, 40, 2)
    (services.signals(space.name) / "go").touch()
    document = space.wait_running("phases")
    assert [[card.memory_mib for card in segment] for segment in allocation(document)] == [[4000], [1500], [500]]
    assert_sees_its_own(space, document)
    wait_held(services, device.uuid, 2000, 10, 2)
    space.delete("phases")
    wait_held(services, device.uuid, 0, 0, 0)


def test_a_sidecar_counts_beside_the_others(space: Namespace, api: Api, services: Services) -> None:
    device = next(card for card in cards(api) if "A100" in card.model)
    sidecar = {**container("sidecar", look(), gpu=1, gpumem=700), "restartPolicy": "Always"}
    init = container("first", "gpuprobe info", gpu=1, gpumem=2500)
    main = container("main", look(), gpu=1, gpumem=900)
    space.create(pod("sidecar", main, init=[sidecar, init], annotations={USE_UUID: device.uuid}))
    document = space.wait_running("sidecar")
    assert_sees_its_own(space, document)
    wait_held(services, device.uuid, 1600, 0, 2)


def test_a_container_that_restarts_keeps_its_grant(space: Namespace) -> None:
    script = "gpuprobe info; sleep 1; exit 1"
    body = pod("again", container("main", script, gpu=1, gpumem=1700), restartPolicy="Always")
    document = space.run(body)
    before = allocation(document)

    def restarted() -> bool:
        (status,) = space.get("again")["status"]["containerStatuses"]
        return int(status["restartCount"]) >= 2

    eventually("two restarts", restarted, 60)
    assert allocation(space.get("again")) == before
    assert_sees_its_own(space, document)
