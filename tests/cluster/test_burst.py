"""Twenty pods of mixed shapes at once on one node: each runs with its own limits, and no node lock is taken."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.cluster.audit import Audit
from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.services import Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import LOCK, assert_nothing_overbooked
from tests.cluster.pods import Namespace, allocation, container, pod
from tests.cluster.probe import assert_sees_its_own, look


def mixed(number: int) -> Json:
    """One of five shapes; its amounts occur in no other pod, so that any mix-up shows."""
    odd = 401 + 13 * number
    script = look()
    match number % 5:
        case 0:
            containers = [container("main", script, gpu=1, gpumem=odd, gpucores=3)]
        case 1:
            containers = [container("main", script, gpu=2, gpumem=odd)]
        case 2:
            containers = [container("main", script, gpumem=odd), container("beside", script, gpu=1, gpumem=odd + 1000)]
        case 3:
            init = [container("first", "gpuprobe info", gpu=1, gpumem=odd + 2000)]
            return pod(f"mixed-{number}", container("main", script, gpu=1, gpumem=odd), init=init)
        case _:
            plain = container("plain")
            containers = [plain, container("main", script, gpu=1, gpumem=odd, gpucores=4)]
    return pod(f"mixed-{number}", *containers)


@pytest.fixture(params=["cdi", "env"])
def strategy(services: Services, request: pytest.FixtureRequest) -> Iterator[None]:
    """The agent hands devices out this way; with `env` the answer to the kubelet itself names the devices."""
    if request.param == "cdi":
        yield
        return
    services.restart_agent([f"--devices={request.param}"])
    yield
    services.restart_agent()


@pytest.mark.usefixtures("strategy")
def test_twenty_pods_at_once_each_with_its_own_limits(space: Namespace, api: Api, audit: Audit) -> None:
    pods = [mixed(number) for number in range(20)]
    with ThreadPoolExecutor(max_workers=10) as pool:
        list(pool.map(space.create, pods))
    for body in pods:
        space.wait_running(body["metadata"]["name"], within_s=90)
    seen: set[int] = set()
    for body in pods:
        document = space.get(body["metadata"]["name"])
        assert_sees_its_own(space, document)
        seen |= {card.memory_mib for segment in allocation(document) for card in segment}
    assert len(seen) == 28, "five shapes of four pods with 7 different amounts a round"
    assert_nothing_overbooked(space)
    assert LOCK not in api.get(f"/api/v1/nodes/{NODE}")["metadata"]["annotations"]
    locking = [write for write in audit.writes(resource="nodes") if LOCK in str(write.body)]
    assert locking == []


@pytest.mark.usefixtures("strategy")
def test_pods_that_go_or_come_uninvited_in_a_burst_confuse_nobody(space: Namespace) -> None:
    # The kubelet's call names no pod: a pod deleted right after its binding is still allocated, and one that names its
    # node itself has no assignment. Amounts differ from pod to pod, so that a mistaken owner shows.
    def body(number: int) -> Json:
        asking = container("main", look(), gpu=1 + number % 2, gpumem=503 + 19 * number)
        if number % 6 == 5:
            return pod(f"mixed-{number}", asking, labels={"hami.io/webhook": "ignore"}, nodeName=NODE)
        return pod(f"mixed-{number}", asking)

    pods = {f"mixed-{number}": body(number) for number in range(24)}
    doomed = {name for number, name in enumerate(pods) if number % 4 == 2}

    def live(name: str) -> None:
        space.create(pods[name])
        if name in doomed:
            eventually(f"{name} bound", lambda: "nodeName" in space.get(name)["spec"], 60, 0.01)
            space.delete(name)

    def assigned(name: str) -> bool:
        return bool(allocation(space.get(name)))

    with ThreadPoolExecutor(max_workers=12) as pool:
        list(pool.map(live, pods))
    for name in pods.keys() - doomed:
        document = space.wait_running(name, within_s=90)
        eventually(f"an assignment on {name}", partial(assigned, name), 10)
        assert_sees_its_own(space, document)
        asked = pods[name]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpumem"]
        assert {card.memory_mib for segment in allocation(space.get(name)) for card in segment} == {asked}
    assert_nothing_overbooked(space)
