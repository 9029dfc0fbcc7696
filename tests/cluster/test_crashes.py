"""The scheduler, the agent and the kubelet die in a burst and come back: nothing is lost or given twice."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.harness.api import Api, ApiError, Json
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.services import AGENT, SCHEDULER, Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import assert_nothing_overbooked
from tests.cluster.pods import Namespace, allocation, container, pod
from tests.cluster.probe import assert_sees_its_own, look

BURST = 16


def shape(number: int) -> Json:
    return container("main", look(), gpu=1 + number % 2, gpumem=501 + 17 * number, gpucores=number % 7)


def burst_with_crash(space: Namespace, bodies: list[Json], bound_before: int, crash: Callable[[], None]) -> None:
    """Create the pods at once; `crash` when `bound_before` of them are bound."""

    def create(body: Json) -> None:
        # While the webhook is down the server refuses pods; a client asks again.
        def created() -> bool:
            try:
                space.create(body)
            except ApiError as error:
                if error.status == 409:
                    return True
                if error.status != 500:
                    raise
                return False
            return True

        eventually("pod created", created, 60, 0.3)

    with ThreadPoolExecutor(max_workers=BURST) as pool:
        made = [pool.submit(create, body) for body in bodies]
        eventually(
            f"{bound_before} pods bound",
            lambda: sum("nodeName" in item["spec"] for item in space.pods()) >= bound_before,
            30,
            0.02,
        )
        crash()
        for result in made:
            result.result()


def assert_all_run_on_their_own(space: Namespace, names: list[str]) -> None:
    for name in names:
        assert_sees_its_own(space, space.wait_running(name, within_s=120))
    assert_nothing_overbooked(space)


def test_the_scheduler_is_killed_in_a_burst(space: Namespace, cluster: Cluster, services: Services) -> None:
    bodies = [pod(f"burst-{number}", shape(number)) for number in range(BURST)]

    def crash() -> None:
        cluster.processes.kill(SCHEDULER)
        services.start_scheduler()

    burst_with_crash(space, bodies, 3, crash)
    assert_all_run_on_their_own(space, [body["metadata"]["name"] for body in bodies])
    for body in bodies:
        bindings = allocation(space.get(body["metadata"]["name"]))
        limits = body["spec"]["containers"][0]["resources"]["limits"]
        assert [len(segment) for segment in bindings] == [limits["nvidia.com/gpu"]]


def replicas(space: Namespace, api: Api, count: int) -> Callable[[], list[str]]:
    """A ReplicaSet of shares; what it returns lists the names of its pods that run."""
    template = pod("replica", container("main", look(), gpu=1, gpumem=700, gpucores=5), labels={"app": "crash"})
    # A pod that a device plug-in could not serve has failed for good; its controller makes another.
    template["spec"]["restartPolicy"] = "Always"
    del template["metadata"]["name"]
    api.post(
        f"/apis/apps/v1/namespaces/{space.name}/replicasets",
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "crash"},
            "spec": {
                "replicas": count,
                "selector": {"matchLabels": {"app": "crash"}},
                "template": {"metadata": template["metadata"], "spec": template["spec"]},
            },
        },
    )

    def running() -> list[str]:
        items = space.pods(labelSelector="app=crash")
        return [item["metadata"]["name"] for item in items if _ready(item)]

    return running


def _ready(document: Json) -> bool:
    statuses = document["status"].get("containerStatuses", ())
    return document["status"].get("phase") == "Running" and bool(statuses) and all(s["ready"] for s in statuses)


def _survives(
    space: Namespace, api: Api, services: Services, crash: Callable[[], None], restart: Callable[[], None]
) -> None:
    """Pods that ran before keep their limits, and in the end every replica runs."""
    space.run(pod("before", container("main", "while :; do gpuprobe info; sleep 1; done", gpu=1, gpumem=900)))
    before = space.get("before")
    running = replicas(space, api, BURST)
    try:
        eventually("three replicas run", lambda: len(running()) >= 3, 60, 0.05)
        crash()
        crashed = time.time()
        restart()
        services.wait_devices(since=crashed)
        eventually(f"{BURST} replicas run", lambda: len(running()) == BURST, 120)
        for name in running():
            assert_sees_its_own(space, space.get(name))
        assert_nothing_overbooked(space)
        after = space.get("before")
        assert after["status"]["phase"] == "Running"
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0
        assert allocation(after) == allocation(before)
        assert_sees_its_own(space, after)
    finally:
        api.delete(f"/apis/apps/v1/namespaces/{space.name}/replicasets/crash")


def test_the_agent_is_killed_in_a_burst(space: Namespace, api: Api, cluster: Cluster, services: Services) -> None:
    _survives(space, api, services, lambda: cluster.processes.kill(AGENT), services.start_agent)


def test_the_kubelet_is_killed_in_a_burst(space: Namespace, api: Api, cluster: Cluster, services: Services) -> None:
    _survives(space, api, services, lambda: cluster.processes.kill("kubelet"), cluster.kubelet.start)
