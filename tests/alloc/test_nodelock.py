"""The node lock: who may take it, when it is broken, and who may remove it."""

from typing import Any

import pytest

from hami.alloc.nodelock import Step, acquire, lock_owner, may_release
from hami.model.names import NodeName, PodKey, WireError
from hami.model.wire.pod import read_lock
from tests.alloc.pods import container, pod

NODE = NodeName("n")
ME = PodKey("ns", "me")
OTHER = PodKey("ns", "p")
LOCK = "2026-08-21T08:00:00Z,ns,p"
SINCE = read_lock(LOCK).since


def owner(notes: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return pod(container(gpu=1), notes=notes or {}, **more)


@pytest.mark.parametrize(
    ("text", "holder", "age", "step", "reason"),
    [
        pytest.param(None, None, 0, Step.SET, "", id="no lock"),
        pytest.param("", None, 0, Step.SET, "", id="empty"),
        pytest.param("2026-08-21T10:00:00+02:00,ns,me", None, 400, Step.OURS, "", id="ours, another zone"),
        pytest.param(LOCK, owner(nodeName="n"), 301, Step.TAKE_OVER, "older than 300s", id="old"),
        pytest.param(LOCK, owner(nodeName="n"), 300, Step.WAIT, "ns/p", id="just not old"),
        pytest.param(LOCK, None, 1, Step.TAKE_OVER, "its pod is gone", id="gone"),
        pytest.param(LOCK, owner(status={"phase": "Failed"}), 1, Step.TAKE_OVER, "its pod has ended", id="failed"),
        pytest.param(
            LOCK, owner({"hami.io/bind-phase": "success"}, nodeName="n"), 1, Step.TAKE_OVER, "served", id="served"
        ),
        pytest.param(
            LOCK, owner({"hami.io/bind-phase": "failed"}, nodeName="n"), 1, Step.TAKE_OVER, "served", id="refused"
        ),
        pytest.param(
            LOCK, owner({"hami.io/bind-phase": "allocating"}, nodeName="n"), 1, Step.WAIT, "", id="being served"
        ),
        pytest.param(LOCK, owner(nodeName="m"), 1, Step.TAKE_OVER, "runs on node m", id="runs elsewhere"),
        pytest.param(LOCK, owner({"hami.io/vgpu-node": "m"}), 1, Step.TAKE_OVER, "node m", id="promised elsewhere"),
        pytest.param(LOCK, owner({"hami.io/vgpu-node": "n"}), 60, Step.WAIT, "", id="promised here"),
        pytest.param(LOCK, owner(), 9, Step.WAIT, "", id="about to be bound"),
        pytest.param(LOCK, owner(), 11, Step.TAKE_OVER, "never bound", id="never bound"),
        pytest.param(
            LOCK, owner(meta={"deletionTimestamp": "x"}), 1, Step.TAKE_OVER, "deleted before", id="deleted, unbound"
        ),
        # The kubelet still allocates for a pod that was deleted after its bind.
        pytest.param(LOCK, owner(meta={"deletionTimestamp": "x"}, nodeName="n"), 1, Step.WAIT, "", id="deleted, bound"),
        pytest.param("2026-08-21T08:00:00Z", None, 299, Step.WAIT, "another pod", id="names nobody"),
        pytest.param("2026-08-21T08:00:00Z", None, 301, Step.TAKE_OVER, "older", id="names nobody, old"),
        pytest.param(LOCK, owner(nodeName="n"), -3600, Step.WAIT, "", id="from the future"),
        pytest.param(LOCK, {"metadata": [], "spec": 1}, 11, Step.TAKE_OVER, "never bound", id="no pod at all"),
    ],
)
def test_acquire(text: str | None, holder: dict[str, Any] | None, age: float, step: Step, reason: str) -> None:
    verdict = acquire(text, claimant=ME, node=NODE, owner=holder, now_unix=SINCE + age)
    assert verdict.step is step
    assert reason in verdict.reason


def test_the_waiting_pods_message_is_the_references() -> None:
    verdict = acquire(LOCK, claimant=ME, node=NODE, owner=owner(nodeName="n"), now_unix=SINCE)
    assert verdict.reason.startswith("node n has been locked within 5m0s: node lock contention")
    shorter = acquire(LOCK, claimant=ME, node=NODE, owner=owner(nodeName="n"), now_unix=SINCE, timeout_s=45)
    assert "within 45s:" in shorter.reason


@pytest.mark.parametrize("text", ["yesterday", "2026-08-21T08:00:00Z,ns", "a,b,c,d"])
def test_what_is_no_lock_is_not_broken(text: str) -> None:
    with pytest.raises(WireError, match=r"hami\.io/mutex\.lock"):
        acquire(text, claimant=ME, node=NODE, owner=None, now_unix=SINCE)
    assert not may_release(text, OTHER)
    assert lock_owner(text) is None


@pytest.mark.parametrize(
    ("text", "mine"),
    [(LOCK, True), ("2026-08-21T08:00:00Z,ns,q", False), ("2026-08-21T08:00:00Z", False), (None, False), ("", False)],
)
def test_only_the_owner_releases(text: str | None, mine: bool) -> None:
    assert may_release(text, OTHER) is mine


def test_owner() -> None:
    assert lock_owner(LOCK) == OTHER
    assert lock_owner("2026-08-21T08:00:00Z") is None
    assert lock_owner(None) is None
