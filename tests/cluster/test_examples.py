"""The README's three examples, from their files; and a pod that has to wait.

Only the image and its command are replaced, by the test's own, because there is no registry here; requests, annotations
and controllers are what a user applies.
"""

import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.images import PROBE
from tests.cluster.harness.layout import REPOSITORY
from tests.cluster.harness.waiting import eventually, holds
from tests.cluster.nodes import cards
from tests.cluster.pods import Card, Namespace, allocation, container, pod
from tests.cluster.probe import assert_sees_its_own, look, seen

EXAMPLES = REPOSITORY / "examples" / "nvidia"
COLLECTIONS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
}


def example(path: Path, script: str) -> Json:
    """The example's object, its containers running `script` on the test's image."""
    document: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 1
    for entry in spec["containers"]:
        entry.update(image=PROBE, imagePullPolicy="Never", command=["/bin/sh", "-c", f"trap 'exit 0' TERM; {script}"])
    return document


def apply(space: Namespace, document: Json) -> str:
    space.api.post(COLLECTIONS[document["kind"]].format(space.name), document)
    return str(document["metadata"]["name"])


def test_default_use(space: Namespace) -> None:
    name = apply(space, example(EXAMPLES / "default_use.yaml", look()))
    document = space.wait_running(name)
    ((card,),) = allocation(document)
    assert (card.memory_mib, card.cores) == (3000, 30)
    assert_sees_its_own(space, document)


def test_training_job_with_two_devices(space: Namespace, api: Api) -> None:
    # Only A100s are big enough for nothing else; both are given whole and alone.
    name = apply(space, example(EXAMPLES / "training_job.yaml", "gpuprobe info"))
    job = f"/apis/batch/v1/namespaces/{space.name}/jobs/{name}"
    eventually("job complete", lambda: api.get(job)["status"].get("succeeded") == 1, 60)
    (worker,) = space.pods()
    sizes = {card.uuid: card.memory_mib for card in cards(api)}
    ((one, two),) = allocation(worker)
    assert one.uuid != two.uuid
    assert [one, two] == [Card(uuid=card.uuid, memory_mib=sizes[card.uuid], cores=100) for card in (one, two)]
    views = seen(space.results(worker["metadata"]["name"]))
    assert {view.uuid: view.cuda_total for view in views} == {one.uuid: one.memory_mib, two.uuid: two.memory_mib}


def test_three_inference_replicas_share_one_device(space: Namespace) -> None:
    apply(space, example(EXAMPLES / "inference_deployment.yaml", look()))

    def running() -> list[Json] | None:
        items = [item for item in space.pods() if item["status"].get("phase") == "Running"]
        return items if len(items) == 3 else None

    replicas = eventually("three replicas running", running, 40)
    shares = [share for item in replicas for segment in allocation(item) for share in segment]
    assert len({share.uuid for share in shares}) == 1
    assert {(share.memory_mib, share.cores) for share in shares} == {(2000, 30)}
    for item in replicas:
        assert_sees_its_own(space, item)


@pytest.fixture
def full(space: Namespace, api: Api) -> Namespace:
    """Every device has one holder that leaves 200 MiB."""
    for number, card in enumerate(cards(api)):
        annotations = {"nvidia.com/use-gpuuuid": card.uuid}
        space.create(pod(f"holder-{number}", container(gpu=1, gpumem=card.memory_mib - 200), annotations=annotations))
    for number, _ in enumerate(cards(api)):
        space.wait_running(f"holder-{number}")
    return space


def test_a_pod_that_does_not_fit_waits_with_one_event_and_starts_when_there_is_room(full: Namespace) -> None:
    full.create(pod("waiting", container(gpu=1, gpumem=300)))
    message = full.wait_event("waiting", "FilteringFailed")
    assert "no available node, 1 nodes do not meet" in message
    assert "6 devices short of memory (largest free 200 MiB)" in message
    assert "1 nodes CardInsufficientMemory(127.0.0.1)" in message
    assert len(message.encode()) <= 1024
    holds("it stays pending", lambda: full.get("waiting")["status"]["phase"] == "Pending", 3)
    refusals = [event for event in full.events("waiting") if event["reason"] == "FilteringFailed"]
    assert len(refusals) == 1

    full.delete("holder-3")
    eventually("holder-3 gone", lambda: "holder-3" not in {item["metadata"]["name"] for item in full.pods()}, 30, 0.02)
    gone = time.monotonic()
    eventually("waiting bound", lambda: "nodeName" in full.get("waiting")["spec"], 10, 0.02)
    assert time.monotonic() - gone < 2
    full.wait_running("waiting")
