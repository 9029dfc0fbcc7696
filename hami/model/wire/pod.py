"""What a pod carries: annotation keys, the allocation text, and the node lock that names a pod.

The allocation text has one segment a container, init containers first: `GPU-a,NVIDIA,3000,30:;;` is one card for the
first of two containers. The writer is canonical. The reader's hard thing is history: HAMi releases from 2.4 to 2.10
disagree on which containers have a segment, so it tries each release's rule against what the containers ask for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from hami.model.claim import Role, Segments, Share
from hami.model.names import INT32_MAX, DeviceUuid, PodKey, WireError, clip
from hami.model.wire import gojson

# NVIDIA's keys.
NVIDIA_NODE: Final = "hami.io/node-nvidia-register"
NVIDIA_LINKS: Final = "hami.io/node-nvidia-score"
NVIDIA_HANDSHAKE: Final = "hami.io/node-handshake"
NVIDIA_PENDING: Final = "hami.io/vgpu-devices-to-allocate"
NVIDIA_DONE: Final = "hami.io/vgpu-devices-allocated"
NVIDIA_MIG: Final = "hami.io/vgpu-mig-allocations"
NVIDIA_TYPE_IN: Final = "nvidia.com/use-gputype"
NVIDIA_TYPE_OUT: Final = "nvidia.com/nouse-gputype"
NVIDIA_UUID_IN: Final = "nvidia.com/use-gpuuuid"
NVIDIA_UUID_OUT: Final = "nvidia.com/nouse-gpuuuid"
NVIDIA_NUMA_BIND: Final = "nvidia.com/numa-bind"
NVIDIA_MODE: Final = "nvidia.com/vgpu-mode"

# Keys of every family, on nodes.
NODE_LOCK: Final = "hami.io/mutex.lock"
CORDON: Final = "hami.io/device-cordon"
AGENT_PROTOCOL: Final = "hami.io/agent-protocol"

# Keys of every family, on pods.
NODE: Final = "hami.io/vgpu-node"
"""Chosen node; an annotation and, where the name is short enough, a label."""
TIME: Final = "hami.io/vgpu-time"
BIND_TIME: Final = "hami.io/bind-time"
BIND_PHASE: Final = "hami.io/bind-phase"
NODE_POLICY: Final = "hami.io/node-scheduler-policy"
CARD_POLICY: Final = "hami.io/gpu-scheduler-policy"
SCORE_WEIGHTS: Final = "hami.io/device-scoring-weights"
TOPOLOGY_REQUIRE: Final = "hami.io/topology-require"
ALLOW_MOVE: Final = "hami.io/allow-move"

# Labels.
WEBHOOK: Final = "hami.io/webhook"
WEBHOOK_IGNORE: Final = "ignore"
SCHEDULER_ROLE: Final = "hami.io/scheduler-role"
POD_GROUP: Final = "scheduling.x-k8s.io/pod-group"

ALLOCATING: Final = "allocating"
SUCCESS: Final = "success"
FAILED: Final = "failed"

MAX_LABEL: Final = 63
"""Characters of a label's value; a longer node name is only annotated."""
MAX_PROBLEMS: Final = 8
"""Problems told of one text; a hostile one could hold tens of thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedSegments:
    """What an allocation text says, and what in it could not be used."""

    segments: Segments
    """Exactly one a container, init containers first."""
    problems: tuple[WireError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLock:
    """The value of the node lock: since when, and for which pod (None: written by a release that named none)."""

    since: float
    """Unix seconds."""
    owner: PodKey | None


def write_segments(segments: Segments) -> str:
    """The canonical text: every card ends with `:`, every container with `;`."""
    return "".join("".join(map(_write_share, segment)) + ";" for segment in segments)


def read_segments(text: str, field: str, *, asked: Sequence[int], roles: Sequence[Role]) -> DecodedSegments:
    """Shares by container, from a text of any release.

    `asked[i]` is how many cards of this family container i requests and `roles[i]` what it is, init containers first.
    Never raises: an unusable card is a problem and is left out, the others still count. Cards that no release's rule
    attributes to a container count as the first app container's, which is what they cost the device at worst.
    """
    if len(asked) != len(roles):
        raise ValueError(f"{len(asked)} requests for {len(roles)} containers")
    problems = _Problems(field)
    pieces = text.split(";")
    if not pieces[-1]:
        pieces.pop()
    found = [_read_segment(piece, f"{field}[{i}]", problems) if piece else () for i, piece in enumerate(pieces)]
    result: list[tuple[Share, ...]] = [()] * len(roles)
    owners = _owners([len(cards) for cards in found], asked, roles)
    if owners is None:
        problems.add(field, "as many cards a container as the pod requests", text)
        result = _as_app_usage(found, roles)
    else:
        for cards, owner in zip(found, owners, strict=True):
            if cards:
                result[owner] = tuple(card for card in cards if card is not None)
    return DecodedSegments(segments=tuple(result), problems=problems.told())


def rfc3339(unix: float) -> str:
    """`2026-08-21T08:00:00Z`: whole seconds, UTC."""
    return datetime.fromtimestamp(int(unix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_rfc3339(text: str, field: str) -> float:
    """Unix seconds of a time with any zone offset and any fraction."""
    shape = _RFC3339.fullmatch(text)
    if shape is None:
        raise WireError(field, "an RFC 3339 time", text)
    try:
        zone = UTC if shape["zone"] in ("Z", "z") else _zone(shape["zone"])
        whole = datetime(*(int(shape[i]) for i in range(1, 7)), tzinfo=zone)  # type: ignore[arg-type,misc]
        return whole.timestamp() + float(f"0{shape['fraction'] or ''}")
    except (ValueError, OverflowError) as error:
        raise WireError(field, "an RFC 3339 time", text) from error


def read_unix(text: str, field: str) -> int:
    """Decimal Unix seconds, as `vgpu-time` and `bind-time` hold them."""
    if not (0 < len(text) <= 12 and text.isascii() and text.isdigit()):
        raise WireError(field, "decimal Unix seconds", text)
    return int(text)


def read_lock(text: str, field: str = f"metadata.annotations[{NODE_LOCK}]") -> NodeLock:
    """`<time>,<namespace>,<pod>`, or the time alone."""
    match gojson.annotation(text, field).split(","):
        case [time]:
            return NodeLock(since=read_rfc3339(time, field), owner=None)
        case [time, namespace, name]:
            return NodeLock(since=read_rfc3339(time, field), owner=PodKey(namespace, name))
        case _:
            raise WireError(field, "<time>,<namespace>,<pod>", text)


def write_lock(since: float, owner: PodKey) -> str:
    """The lock's value as foreign plug-ins read it; `since` in Unix seconds."""
    return f"{rfc3339(since)},{owner.namespace},{owner.name}"


_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?P<fraction>\.\d{1,18})?(?P<zone>[Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def _zone(offset: str) -> timezone:
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    if minutes > 59:
        raise ValueError(offset)
    distance = timedelta(hours=hours, minutes=minutes)
    return timezone(-distance if offset[0] == "-" else distance)


class _Problems:
    """The first few problems of one text, and how many more there were."""

    __slots__ = ("_field", "_first", "_more")

    def __init__(self, field: str) -> None:
        self._field = field
        self._first: list[WireError] = []
        self._more = 0

    def add(self, field: str, expected: str, got: str) -> None:
        if len(self._first) < MAX_PROBLEMS:
            self._first.append(WireError(field, expected, clip(got)))
        else:
            self._more += 1

    def told(self) -> tuple[WireError, ...]:
        if not self._more:
            return tuple(self._first)
        return (*self._first, WireError(self._field, "usable cards", f"{self._more} more problems"))


def _write_share(share: Share) -> str:
    for word in (share.uuid, share.kind):
        if not word or any(mark in word for mark in ",:;"):
            raise WireError("share", "a UUID and a kind without , : ;", word)
    for amount in (share.memory_mib, share.cores, share.units):
        if not 0 <= amount <= INT32_MAX:
            raise WireError("share", f"an amount from 0 to {INT32_MAX}", amount)
    return f"{share.uuid},{share.kind},{share.memory_mib},{share.units or share.cores}:"


def _read_segment(piece: str, field: str, problems: _Problems) -> Sequence[Share | None]:
    """The cards of one segment; None for one that cannot be used but still shows whose segment this is."""
    cards: list[Share | None] = []
    for position, card in enumerate(piece.split(":")):
        # A card without UUID is the place holder that releases 2.4 and 2.5 wrote for a container without cards.
        if not card or card.startswith(","):
            continue
        cards.append(_read_share(card, f"{field}[{position}]", problems))
    return cards


def _read_share(card: str, field: str, problems: _Problems) -> Share | None:
    """One card, as far as it can be read: what a damaged text still shows is in use and must not be given out twice."""
    parts = card.split(",", 4)
    if len(parts) < 4:
        problems.add(field, "uuid,type,memory,cores", card)
    if len(parts) < 3:
        return None
    memory_mib = _read_amount(parts[2], f"{field}.memory", problems)
    cores = _read_amount(parts[3], f"{field}.cores", problems) if len(parts) > 3 else None
    return Share(uuid=DeviceUuid(parts[0]), kind=parts[1], memory_mib=memory_mib or 0, cores=cores or 0)


def _read_amount(text: str, field: str, problems: _Problems) -> int | None:
    """An amount; one beyond 32 bit is told and counts as the largest, which is more than any card has."""
    try:
        return gojson.decimal(text, field)
    except WireError as error:
        problems.add(error.field, error.expected, str(error.got))
        return INT32_MAX if text.isascii() and text.isdigit() else None


def _owners(counts: Sequence[int], asked: Sequence[int], roles: Sequence[Role]) -> list[int] | None:
    """The container of each segment by the first rule under which everything adds up, or None.

    `counts[s]` is the number of cards in segment s. An empty segment's owner means nothing.
    """
    everyone = list(range(len(roles)))
    apps = [i for i in everyone if roles[i] is Role.APP]
    filled = [s for s, count in enumerate(counts) if count]
    for mapped, by_position in (
        (everyone, True),  # canonical, and 2.9
        (apps, True),  # 2.6 to 2.8: app containers only
        (everyone, False),  # 2.10: containers without cards leave no segment; 2.7 to 2.9 with two families
        (apps, False),  # 2.4 to 2.6: no leading empties, init containers never scheduled
    ):
        wanting = [i for i in mapped if asked[i]]
        targets = mapped if by_position else wanting
        places = filled if by_position else list(range(len(filled)))
        if any(place >= len(targets) for place in places):
            continue
        got = {targets[place]: counts[s] for place, s in zip(places, filled, strict=True)}
        if all(asked[i] == count for i, count in got.items()) and all(i in got for i in wanting):
            owners = [0] * len(counts)
            for place, s in zip(places, filled, strict=True):
                owners[s] = targets[place]
            return owners
    return None


def _as_app_usage(found: Sequence[Sequence[Share | None]], roles: Sequence[Role]) -> list[tuple[Share, ...]]:
    result: list[tuple[Share, ...]] = [()] * len(roles)
    if roles:
        owner = next((i for i, role in enumerate(roles) if role is Role.APP), len(roles) - 1)
        result[owner] = tuple(card for cards in found for card in cards if card is not None)
    return result
