"""Decisions not bound yet: how each of them ends, without a loop."""

import pytest

from hami.alloc.ledger import Ledger
from hami.alloc.record import ForeignHold, read_foreign_hold, read_node
from hami.alloc.request import read_request
from hami.model.claim import Assignment, PodRequest, Share
from hami.model.names import DeviceUuid, NodeName, PodUid, VendorWord
from hami.model.wire import pod as keys
from hami.scheduler.holds import Hold, Holds, State
from hami.vendors import registry
from tests.fakes.objects import node, pod

NVIDIA = VendorWord("NVIDIA")


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger(registry())
    for name in ("n1", "n2"):
        made.put_node(read_node(node(name), made.registry)[0])
    return made


@pytest.fixture
def holds(ledger: Ledger) -> Holds:
    return Holds(ledger, timeout_s=300)


def request(name: str) -> PodRequest:
    return read_request(pod(name), registry())


def put(holds: Holds, name: str = "p", *, on: str = "n1", now: float = 0.0) -> Hold:
    share = Share(uuid=DeviceUuid(f"{on}-0"), kind="NVIDIA", memory_mib=4096, cores=0)
    assignment = Assignment(node=NodeName(on), segments={NVIDIA: ((share,),)})
    return holds.put(request(name), assignment, now=now)


def foreign(name: str, *, on: str = "n1", at: int = 1) -> ForeignHold:
    notes = {keys.NODE: on, keys.NVIDIA_DONE: f"{on}-0,NVIDIA,4096,0:;", keys.TIME: str(at)}
    hold, _ = read_foreign_hold(pod(name, annotations=notes), registry())
    assert hold is not None
    return hold


def used(ledger: Ledger, name: str = "n1") -> int:
    return ledger.usage(NodeName(name))[0].used_memory_mib


def test_counts_until_released(ledger: Ledger, holds: Holds) -> None:
    put(holds)
    assert used(ledger) == 4096
    put(holds, on="n2")
    assert (used(ledger), used(ledger, "n2")) == (0, 4096)
    assert holds.release(PodUid("uid-p"))
    assert used(ledger, "n2") == 0
    assert not holds.release(PodUid("uid-p"))


def test_expires_only_while_nothing_is_under_way(ledger: Ledger, holds: Holds) -> None:
    states = (State.HELD, State.BINDING, State.BOUND, State.UNSURE)
    for i, state in enumerate(states):
        put(holds, f"p{i}").state = state
    put(holds, "young", now=100)
    assert holds.expire(299) == 0
    assert holds.expire(300) == 1
    assert used(ledger) == 4 * 4096
    assert holds.expire(401) == 1
    assert {hold.state for hold in holds} == set(states[1:])


def test_settling(ledger: Ledger, holds: Holds) -> None:
    hold = put(holds)
    holds.settle(hold, State.BOUND)
    assert (hold.state, used(ledger)) == (State.BOUND, 4096)
    holds.settle(hold, State.HELD)
    assert used(ledger) == 0
    late = put(holds)
    holds.saw_gone(late.record.uid)
    holds.settle(late, State.BOUND)
    assert len(holds) == 0


def test_release_leaves_what_the_watch_has_put_in_its_place(ledger: Ledger, holds: Holds) -> None:
    put(holds)
    ledger.put_pod(foreign("p", on="n2").record)
    holds.release(PodUid("uid-p"))
    assert used(ledger, "n2") == 4096


def test_another_schedulers_decision_is_held_for_a_while(ledger: Ledger, holds: Holds) -> None:
    uid = PodUid("uid-f")
    holds.saw_unbound(uid, foreign("f"), now=0)
    assert used(ledger) == 4096
    holds.saw_unbound(uid, foreign("f"), now=200)
    holds.saw_unbound(uid, foreign("f", on="n2", at=2), now=250)
    assert (used(ledger), used(ledger, "n2")) == (0, 4096)
    assert holds.expire(301) == 0
    assert holds.expire(551) == 1
    holds.saw_unbound(uid, foreign("f", at=3), now=600)
    assert holds.saw_unbound(uid, None, now=601)
    assert used(ledger) == 0


def test_our_own_decision_stands_against_what_others_wrote(ledger: Ledger, holds: Holds) -> None:
    put(holds, "p", on="n1")
    assert not holds.saw_unbound(PodUid("uid-p"), foreign("p", on="n2"), now=1)
    assert not holds.saw_unbound(PodUid("uid-p"), None, now=1)
    assert (used(ledger), used(ledger, "n2")) == (4096, 0)


def test_a_listing_ends_older_holds_of_pods_that_are_not_in_it(ledger: Ledger, holds: Holds) -> None:
    put(holds, "listed").state = State.BOUND
    put(holds, "lost").state = State.BOUND
    put(holds, "binding").state = State.BINDING
    put(holds, "newer", now=20)
    assert holds.reconcile([PodUid("uid-listed")], since=10) == 1
    assert holds.get(PodUid("uid-lost")) is None
    assert len(holds) == 3
    ledger.check()
