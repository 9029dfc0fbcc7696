"""Who is slowed and who waits. Times are seconds since a container last had work on its devices."""

import pytest

from hami.alloc.feedback import HOLD_S, ContainerUse, Rhythm, feedback, tenants
from hami.model.names import DeviceUuid


def use(name: str, devices: str, priority: int, idle_s: float | None) -> ContainerUse:
    uuids = frozenset(DeviceUuid(f"GPU-{letter}") for letter in devices)
    return ContainerUse(id=name, devices=uuids, priority=priority, idle_s=idle_s)


@pytest.mark.parametrize(
    ("uses", "blocked", "sharing"),
    [
        pytest.param([use("x", "a", 1, 0)], "", "", id="alone"),
        pytest.param([use("x", "a", 1, 0), use("y", "a", 1, 0)], "", "xy", id="two share"),
        pytest.param([use("x", "a", 1, 0), use("y", "b", 1, 0)], "", "", id="two devices"),
        pytest.param([use("x", "ab", 1, 0), use("y", "b", 1, 0)], "", "xy", id="one device in common"),
        pytest.param([use("x", "a", 1, 0), use("y", "a", 1, None)], "", "", id="the other never ran"),
        pytest.param([use("x", "a", 1, 0), use("y", "a", 1, HOLD_S)], "", "", id="the other has paused"),
        pytest.param([use("x", "a", 1, 0), use("y", "a", 1, HOLD_S - 0.1)], "", "xy", id="the other pauses shortly"),
        pytest.param([use("hi", "a", 0, 0), use("lo", "a", 1, 0)], "lo", "lo", id="low waits for high"),
        pytest.param([use("hi", "a", 0, 0), use("lo", "a", 1, None)], "lo", "lo", id="low waits before it ever ran"),
        pytest.param([use("hi", "a", 0, None), use("lo", "a", 1, 0)], "", "", id="an idle high blocks nobody"),
        pytest.param([use("hi", "a", 0, 5), use("lo", "a", 1, 5)], "", "", id="released when high has paused"),
        pytest.param([use("hi", "a", 0, 0), use("lo", "b", 1, 0)], "", "", id="high elsewhere"),
        pytest.param([use("hi", "a", 0, 0), use("lo", "ab", 1, 0)], "lo", "lo", id="one device is enough to wait"),
        pytest.param([use("h", "a", 0, 0), use("i", "a", 0, 0), use("l", "a", 1, 0)], "l", "hil", id="two highs share"),
        pytest.param([use("0", "a", 0, 9), use("1", "a", 1, 0), use("2", "a", 2, 0)], "2", "2", id="three levels"),
    ],
)
def test_feedback(uses: list[ContainerUse], blocked: str, sharing: str) -> None:
    verdicts = feedback(uses)
    assert [verdict.id for verdict in verdicts] == [one.id for one in uses]
    assert {verdict.id for verdict in verdicts if verdict.blocked} == ({blocked} if blocked else set())
    named = {one.id for one in uses if one.id in sharing}
    assert {verdict.id for verdict in verdicts if verdict.sharing} == named


def test_order_does_not_matter() -> None:
    uses = [use("h", "a", 0, 0), use("l", "ab", 1, 0), use("m", "b", 1, 0.5)]
    assert set(feedback(uses)) == set(feedback(uses[::-1]))


def test_the_hold_time_is_the_callers() -> None:
    pair = [use("x", "a", 1, 0), use("y", "a", 1, 1.0)]
    assert [verdict.sharing for verdict in feedback(pair, hold_s=0.5)] == [False, False]


def test_tenants_are_the_active_ones() -> None:
    uses = [use("x", "ab", 0, 0), use("y", "a", 1, 1), use("z", "a", 1, None), use("w", "a", 1, 9)]
    assert tenants(uses) == {DeviceUuid("GPU-a"): 2, DeviceUuid("GPU-b"): 1}


def test_waiting_ends_sooner_than_limits() -> None:
    high = ContainerUse(id="h", devices=frozenset({DeviceUuid("GPU-a")}), priority=0, idle_s=0.3, hold_s=0.2)
    verdicts = {verdict.id: verdict for verdict in feedback([high, use("l", "a", 1, 0), use("m", "a", 0, 0)])}
    assert not feedback([high, use("l", "a", 1, 0)])[1].blocked
    assert verdicts["l"].blocked, "another of high priority is at work"
    assert verdicts["m"].sharing, "a limit holds on through a neighbour's pause"


def _hold(pauses: list[float]) -> float:
    rhythm, now = Rhythm().launched(10.0), 10.0
    for pause in pauses:
        now += pause
        rhythm = rhythm.launched(now)
    return rhythm.hold_s()


@pytest.mark.parametrize(
    ("pauses", "hold_s"),
    [
        pytest.param([], HOLD_S, id="nothing known yet"),
        pytest.param([0.05] * 20, HOLD_S, id="a second is too little"),
        pytest.param([0.05] * 200, 0.075, id="always at it"),
        pytest.param([0.5] * 40, 0.75, id="twice a second"),
        pytest.param([0.05] * 100 + [0.6] + [0.05] * 20, 0.9, id="a pause is remembered"),
        pytest.param([0.05] * 100 + [0.6] + [0.05] * 200, 0.075, id="and forgotten"),
        pytest.param([1.8] * 20, HOLD_S, id="never longer than limits hold"),
        pytest.param([0.05] * 200 + [5.0], HOLD_S, id="after a rest it is new"),
    ],
)
def test_how_long_others_wait(pauses: list[float], hold_s: float) -> None:
    assert _hold(pauses) == pytest.approx(hold_s)


def test_idle_time() -> None:
    assert Rhythm().idle_s(5.0) is None
    assert Rhythm().launched(5.0).idle_s(6.5) == 1.5
