"""The allocation text and the node lock: written canonically, read from every release that wrote them."""

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.model.claim import Role, Segments, Share
from hami.model.names import INT32_MAX, DeviceUuid, PodKey, WireError
from hami.model.wire import pod
from hami.model.wire.pod import MAX_PROBLEMS, NodeLock, read_segments, write_segments

from . import strategies

INIT, SIDECAR, APP = Role.INIT, Role.SIDECAR, Role.APP
FIELD = "metadata.annotations[hami.io/vgpu-devices-allocated]"


def card(uuid: str, memory_mib: int, cores: int = 0) -> Share:
    return Share(uuid=DeviceUuid(uuid), kind="NVIDIA", memory_mib=memory_mib, cores=cores)


A25 = card("GPU-a", 2500, 25)
A, B = card("GPU-a", 3000), card("GPU-b", 3000)
FULL = card("GPU-a", INT32_MAX)

CANONICAL: list[tuple[str, Segments]] = [
    ("GPU-a,NVIDIA,3000,0:GPU-b,NVIDIA,3000,0:;", ((A, B),)),
    ("GPU-a,NVIDIA,3000,0:;GPU-a,NVIDIA,5000,0:;", ((A,), (card("GPU-a", 5000),))),
    (";GPU-a,NVIDIA,2500,25:;", ((), (A25,))),
    (
        "GPU-a,NVIDIA,4000,0:;GPU-a,NVIDIA,2000,0:;GPU-a,NVIDIA,2000,0:;",
        ((card("GPU-a", 4000),), (card("GPU-a", 2000),), (card("GPU-a", 2000),)),
    ),
    (";;", ((), ())),
]


@pytest.mark.parametrize(("text", "segments"), CANONICAL, ids=[text for text, _ in CANONICAL])
def test_canonical_text_both_ways(text: str, segments: Segments) -> None:
    assert write_segments(segments) == text
    decoded = read_segments(text, FIELD, asked=[len(s) for s in segments], roles=[APP] * len(segments))
    assert (decoded.segments, decoded.problems) == (segments, ())


# (what wrote it, text, cards asked by container, roles, shares by container)
HISTORY: list[tuple[str, str, list[int], list[Role], Segments]] = [
    ("2.10 drops the plain container", "GPU-a,NVIDIA,2500,25:;", [0, 1], [APP, APP], ((), (A25,))),
    ("2.10, plain between", "GPU-a,NVIDIA,3000,0:;GPU-b,NVIDIA,3000,0:;", [1, 0, 1], [APP] * 3, ((A,), (), (B,))),
    ("2.10, plain init", "GPU-a,NVIDIA,3000,0:;", [0, 1], [INIT, APP], ((), (A,))),
    ("2.10, init and app", "GPU-a,NVIDIA,3000,0:;GPU-b,NVIDIA,3000,0:;", [1, 0, 1], [INIT, APP, APP], ((A,), (), (B,))),
    ("2.9 pads init and app", ";GPU-a,NVIDIA,3000,0:;;", [0, 1, 0], [INIT, APP, APP], ((), (A,), ())),
    ("2.8 app containers only", ";GPU-a,NVIDIA,3000,0:;", [0, 0, 1], [INIT, APP, APP], ((), (), (A,))),
    ("2.8, init wants one too", "GPU-a,NVIDIA,3000,0:;", [1, 1], [INIT, APP], ((), (A,))),
    ("2.7 shifted by another family", ";GPU-a,NVIDIA,2500,25:;", [1, 0], [APP, APP], ((A25,), ())),
    ("2.6 without trailing empty", ";GPU-a,NVIDIA,3000,0:;", [0, 1, 0], [APP] * 3, ((), (A,), ())),
    ("2.5 place holder", "GPU-a,NVIDIA,2500,25:;,,0,0:;", [1, 0], [APP, APP], ((A25,), ())),
    ("2.5 no leading segment", "GPU-a,NVIDIA,2500,25:;,,0,0:;", [0, 1, 0], [APP] * 3, ((), (A25,), ())),
    ("2.4, init wants one, plain first app", "GPU-a,NVIDIA,3000,0:;", [1, 0, 1], [INIT, APP, APP], ((), (), (A,))),
    ("ours, sidecar", ";GPU-a,NVIDIA,3000,0:;GPU-b,NVIDIA,3000,0:;", [0, 1, 1], [INIT, SIDECAR, APP], ((), (A,), (B,))),
    ("no final separator", "GPU-a,NVIDIA,3000,0:", [1], [APP], ((A,),)),
    ("more fields than known", "GPU-a,NVIDIA,3000,0,later,again:;", [1], [APP], ((A,),)),
    ("nothing of this family", ";;", [0, 0], [APP, APP], ((), ())),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "asked", "roles", "segments"), [row[1:] for row in HISTORY], ids=[r[0] for r in HISTORY]
)
def test_every_release(text: str, asked: list[int], roles: list[Role], segments: Segments) -> None:
    decoded = read_segments(text, FIELD, asked=asked, roles=roles)
    assert (decoded.segments, decoded.problems) == (segments, ())


# A card whose memory cannot be read is still one that somebody holds.
SLOT = replace(A, memory_mib=0)
OLD_SLOT = replace(SLOT, uuid=DeviceUuid("GPU-a[0-1]"))
# (case, text, asked, roles, shares, fields of the problems)
BROKEN: list[tuple[str, str, list[int], list[Role], Segments, list[str]]] = [
    ("too few fields", "GPU-a,NVIDIA:GPU-b,NVIDIA,3000,0:;", [2], [APP], ((B,),), ["[0][0]"]),
    ("memory no number", "GPU-a,NVIDIA,lots,0:;", [1], [APP], ((SLOT,),), ["[0][0].memory"]),
    ("memory with unit", "GPU-a,NVIDIA,3000m,0:;", [1], [APP], ((SLOT,),), ["[0][0].memory"]),
    ("memory negative", "GPU-a,NVIDIA,-3000,0:GPU-b,NVIDIA,3000,0:;", [2], [APP], ((SLOT, B),), ["[0][0].memory"]),
    ("no cores", "GPU-a,NVIDIA,3000:;", [1], [APP], ((A,),), ["[0][0]"]),
    ("cores no number", "GPU-a,NVIDIA,3000,:;", [1], [APP], ((A,),), ["[0][0].cores"]),
    ("cores negative", "GPU-a,NVIDIA,3000,-1:;", [1], [APP], ((A,),), ["[0][0].cores"]),
    ("memory beyond 32 bit", "GPU-a,NVIDIA,2147483648,0:;", [1], [APP], ((FULL,),), ["[0][0].memory"]),
    ("giant number", f"GPU-a,NVIDIA,{'9' * 100_000},0:;", [1], [APP], ((FULL,),), ["[0][0].memory"]),
    ("other digits", "GPU-a,NVIDIA,٣٠٠٠,0:;", [1], [APP], ((SLOT,),), ["[0][0].memory"]),
    ("blank in number", "GPU-a,NVIDIA, 3000,0:;", [1], [APP], ((SLOT,),), ["[0][0].memory"]),
    ("no text at all", "", [1], [APP], ((),), [""]),
    ("a word", "garbage", [1], [APP], ((),), ["[0][0]"]),
    ("JSON", '[{"id":"GPU-a"}]', [1], [APP], ((),), ["[0][0]", "[0][1]", ""]),
    ("more cards than asked", "GPU-a,NVIDIA,3000,0:GPU-b,NVIDIA,3000,0:;", [1], [APP], ((A, B),), [""]),
    ("fewer than asked", "GPU-a,NVIDIA,3000,0:;", [2], [APP], ((A,),), [""]),
    ("nobody asked", "GPU-a,NVIDIA,3000,0:;", [0, 0], [INIT, APP], ((), (A,)), [""]),
    ("more segments than containers", "GPU-a,NVIDIA,3000,0:;GPU-b,NVIDIA,3000,0:;", [1], [APP], ((A, B),), [""]),
    ("only init containers", "GPU-a,NVIDIA,3000,0:;", [0], [INIT], ((A,),), [""]),
    ("an old MIG card without memory", "GPU-a[0-1],NVIDIA,x,0:;", [1], [APP], ((OLD_SLOT,),), ["[0][0].memory"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "asked", "roles", "segments", "paths"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_broken_cards_are_told_and_the_rest_counts(
    text: str, asked: list[int], roles: list[Role], segments: Segments, paths: list[str]
) -> None:
    decoded = read_segments(text, FIELD, asked=asked, roles=roles)
    assert decoded.segments == segments
    assert [problem.field for problem in decoded.problems] == [FIELD + path for path in paths]


def test_a_broken_card_does_not_move_the_others() -> None:
    text = "GPU-a,NVIDIA,?,0:;GPU-b,NVIDIA,3000,0:;"
    assert read_segments(text, FIELD, asked=[1, 1], roles=[APP, APP]).segments == ((SLOT,), (B,))


def test_containers_and_requests_must_match() -> None:
    with pytest.raises(ValueError, match="1 requests for 2 containers"):
        read_segments(";;", FIELD, asked=[1], roles=[APP, APP])


@pytest.mark.parametrize(
    "text",
    [
        ";" * 250_000, ":" * 250_000, "," * 250_000, "a,:" * 80_000, "a," * 125_000, "a,b,1,1:" * 30_000,
        "a,b,-1,1:;" * 25_000,
    ],
    ids=["separators", "cards", "commas", "short cards", "one long card", "valid", "negative"],
)  # fmt: skip
def test_the_largest_annotation_is_read_in_bounded_time(text: str) -> None:
    start = time.perf_counter()
    decoded = read_segments(text, FIELD, asked=[1, 0], roles=[APP, APP])
    assert time.perf_counter() - start < 2
    assert len(decoded.segments) == 2
    assert len(decoded.problems) <= MAX_PROBLEMS + 1
    assert all(len(str(problem)) < 400 for problem in decoded.problems)


@given(strategies.segments)
@settings(deadline=None)
def test_round_trip(segments: Segments) -> None:
    decoded = read_segments(
        write_segments(segments), FIELD, asked=[len(s) for s in segments], roles=[APP] * len(segments)
    )
    assert (decoded.segments, decoded.problems) == (segments, ())


@given(st.text(alphabet="GPU-ab,:;019-\n x", max_size=60), st.lists(st.integers(0, 2), max_size=4))
@settings(deadline=None)
def test_any_text_gives_one_segment_a_container(text: str, asked: list[int]) -> None:
    decoded = read_segments(text, FIELD, asked=asked, roles=[APP] * len(asked))
    assert len(decoded.segments) == len(asked)
    assert all(share.memory_mib >= 0 and share.uuid for segment in decoded.segments for share in segment)


@given(strategies.segments, st.data())
@settings(deadline=None)
def test_no_card_of_a_well_formed_text_is_ever_lost(segments: Segments, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    decoded = read_segments(write_segments(segments), FIELD, asked=asked, roles=[APP] * len(asked))
    assert sorted(map(repr, sum(decoded.segments, ()))) == sorted(map(repr, sum(segments, ())))


@pytest.mark.parametrize(
    "share",
    [
        card("GPU,a", 1),
        card("GPU;a", 1),
        card("", 1),
        card("GPU-a", -1),
        card("GPU-a", 2**31),
        card("GPU-a", 1, -1),
        Share(uuid=DeviceUuid("GPU-a"), kind="", memory_mib=1, cores=0),
    ],
    ids=repr,
)
def test_what_no_reader_could_read_is_not_written(share: Share) -> None:
    with pytest.raises(WireError):
        write_segments(((share,),))


NOON = 1787299200.0  # 2026-08-21T08:00:00Z

LOCKS = [
    ("2026-08-21T08:00:00Z,ns,pod", NodeLock(since=NOON, owner=PodKey("ns", "pod"))),
    ("2026-08-21T10:00:00+02:00,ns,pod", NodeLock(since=NOON, owner=PodKey("ns", "pod"))),
    ("2026-08-21T00:30:00-07:30", NodeLock(since=NOON, owner=None)),
    ("2026-08-21T08:00:00.123456789Z", NodeLock(since=NOON + 0.123456789, owner=None)),
]


@pytest.mark.parametrize(("text", "lock"), LOCKS, ids=[text for text, _ in LOCKS])
def test_lock(text: str, lock: NodeLock) -> None:
    assert pod.read_lock(text) == lock


def test_lock_is_written_in_utc() -> None:
    assert pod.write_lock(NOON + 0.9, PodKey("ns", "pod")) == "2026-08-21T08:00:00Z,ns,pod"


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "ns,pod", "2026-08-21T08:00:00Z,ns", "2026-08-21T08:00:00Z,ns,pod,x", "2026-08-21 08:00:00,ns,pod",
        "2026-08-21T08:00:00,ns,pod", "2026-13-21T08:00:00Z,ns,pod", "2026-08-21T08:00:61Z", "0000-01-01T00:00:00Z",
        "2026-08-21T08:00:00+99:99", "2026-08-21T08:00:00+24:00", "9" * 300_000,
    ],
    ids=range(13),
)  # fmt: skip
def test_malformed_lock(text: str) -> None:
    with pytest.raises(WireError) as caught:
        pod.read_lock(text)
    assert caught.value.field == "metadata.annotations[hami.io/mutex.lock]"


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1787299200", 1787299200)])
def test_unix_seconds(text: str, seconds: int) -> None:
    assert pod.read_unix(text, "x") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e9", "x", "١", "9" * 10**6], ids=range(7))
def test_malformed_unix_seconds(text: str) -> None:
    with pytest.raises(WireError, match="x: expected decimal Unix seconds"):
        pod.read_unix(text, "x")
