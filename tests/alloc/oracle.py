"""The obvious slow allocator that the engine must agree with.

Written from the rules alone, with dictionaries, copies and sorting by tuples; it shares no code with the engine. Where
a rule looks odd (the end of a sorted list is tried first, single precision scores), it is HAMi 2.10's, and rankings
hang on it.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations

from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Need,
    NodeRefusal,
    Percent,
    PodRecord,
    PodRequest,
    Role,
    Selection,
    Share,
    Why,
)
from hami.model.device import Device, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodUid, VendorWord
from hami.model.vendor import Chosen, Registry, Rule, Spot, Wanted

Key = tuple[VendorWord, DeviceUuid]
Scores = dict[tuple[DeviceUuid, DeviceUuid], int]
Limits = Mapping[VendorWord, tuple[int | None, int | None]]


@dataclass
class Used:
    slots: int = 0
    memory: int = 0
    cores: int = 0


@dataclass
class Node:
    record: NodeRecord
    used: dict[Key, Used] = field(default_factory=dict)
    unsound: frozenset[DeviceUuid] = frozenset()

    def of(self, vendor: VendorWord, device: Device) -> Used:
        return self.used.setdefault((vendor, device.uuid), Used())

    def copy(self) -> "Node":
        used = {key: Used(u.slots, u.memory, u.cores) for key, u in self.used.items()}
        return Node(self.record, used, self.unsound)

    def cards(self, registry: Registry) -> list[tuple[VendorWord, Device]]:
        known = [inventory for inventory in self.record.inventories if registry.get(inventory.vendor)]
        return [(inventory.vendor, device) for inventory in known for device in inventory.devices]


@dataclass
class Verdict:
    assignments: dict[NodeName, Assignment]
    refusals: dict[NodeName, NodeRefusal]
    ranking: list[tuple[NodeName, float]]
    otherwise: dict[NodeName, NodeRefusal]
    """Nodes that fit in another way than container by container: what they say to that way alone."""
    nodes: dict[NodeName, Node]
    trial: "Trial"


def single(value: float) -> float:
    """Rounded to single precision."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def pod_usage(pod: PodRecord) -> dict[Key, Used]:
    """Phase by phase: each plain init container with the sidecars before it, then everything that stays."""
    phases: list[list[int]] = []
    stays = [i for i, role in enumerate(pod.roles) if role is not Role.INIT]
    if not pod.inits_done:
        for i, role in enumerate(pod.roles):
            if role is Role.INIT:
                phases.append([j for j in range(i) if pod.roles[j] is Role.SIDECAR] + [i])
    phases.append(stays)
    most: dict[Key, Used] = {}
    for phase in phases:
        now: dict[Key, Used] = {}
        for vendor, segments in pod.segments.items():
            for i in phase:
                for share in segments[i]:
                    used = now.setdefault((vendor, share.uuid), Used())
                    used.slots += 1
                    used.memory += share.memory_mib
                    used.cores += share.cores
        for key, used in now.items():
            before = most.setdefault(key, Used())
            before.slots = max(before.slots, used.slots)
            before.memory = max(before.memory, used.memory)
            before.cores = max(before.cores, used.cores)
    return most


def decide(
    nodes: Sequence[NodeRecord],
    pods: Sequence[PodRecord],
    request: PodRequest,
    registry: Registry,
    *,
    node_policy: str,
    card_policy: str,
    limits: Limits,
    exclude: PodUid | None = None,
    request_scored: bool = False,
) -> Verdict:
    """What every node answers, and in which order the fitting ones rank."""
    pods = [pod for pod in pods if pod.uid != exclude]
    assignments: dict[NodeName, Assignment] = {}
    refusals: dict[NodeName, NodeRefusal] = {}
    scores: dict[NodeName, float] = {}
    links: dict[NodeName, int] = {}
    otherwise: dict[NodeName, NodeRefusal] = {}
    found: dict[NodeName, Node] = {}
    sign = 1 if (request.node_policy or node_policy).strip() == "spread" else -1
    trial = Trial(request, registry, request.card_policy or card_policy, limits, namespace_usage(pods), request_scored)
    for record in nodes:
        node = Node(record, unsound=unsound(record, pods))
        for pod in pods:
            if pod.node == record.name:
                for key, used in pod_usage(pod).items():
                    total = node.used.setdefault(key, Used())
                    total.slots += used.slots
                    total.memory += used.memory
                    total.cores += used.cores
        if not node.cards(registry):
            refusals[record.name] = NodeRefusal(counts={Why.UNREGISTERED: 1})
            continue
        scores[record.name] = node_score(node, registry)
        found[record.name] = node.copy()
        answer = trial.on(node.copy())
        if isinstance(answer, NodeRefusal):
            if trial.any_way(node):
                otherwise[record.name] = answer
            else:
                refusals[record.name] = answer
        else:
            assignments[record.name] = answer
            links[record.name] = trial.link_value
            scores[record.name] = single(scores[record.name] - sign * trial.merit)
    ranked = sorted(
        {**assignments, **otherwise},
        key=lambda name: (-links.get(name, 0), sign * scores[name], tie(request.uid, name)),
    )
    return Verdict(assignments, refusals, [(name, scores[name]) for name in ranked], otherwise, found, trial)


def unsound(record: NodeRecord, pods: Sequence[PodRecord]) -> frozenset[DeviceUuid]:
    """Cards in MIG mode on which a pod has a share: the pods of these tests have no reservations."""
    cut = {d.uuid for inventory in record.inventories for d in inventory.devices if d.mode == "mig"}
    found = {
        share.uuid
        for pod in pods
        if pod.node == record.name
        for segments in pod.segments.values()
        for role, segment in zip(pod.roles, segments, strict=True)
        if role is not Role.INIT or not pod.inits_done
        for share in segment
    }
    return frozenset(cut & found)


def namespace_usage(pods: Sequence[PodRecord]) -> dict[tuple[str, VendorWord], Used]:
    totals: dict[tuple[str, VendorWord], Used] = {}
    for pod in pods:
        for (vendor, _), used in pod_usage(pod).items():
            total = totals.setdefault((pod.key.namespace, vendor), Used())
            total.memory += used.memory
            total.cores += used.cores
    return totals


def node_score(node: Node, registry: Registry) -> float:
    cards = node.cards(registry)
    total = [sum(amounts) for amounts in zip(*((d.slots, d.cores, d.memory_mib) for _, d in cards), strict=True)]
    every = [node.of(vendor, device) for vendor, device in cards]
    used = [sum(u.slots for u in every), sum(u.cores for u in every), sum(u.memory for u in every)]
    score = 0.0
    for part, whole in zip(used, total, strict=True):
        if whole:  # what no card is known to have says nothing about its use
            score = single(score + single(single(part) / single(whole)))
    return single(10 * score)


def tie(uid: PodUid, node: NodeName) -> int:
    def hashed(text: str) -> int:
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")

    x = hashed(uid) ^ hashed(node)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def uniform(scores: Scores) -> bool:
    """No pair of cards is linked better than another; also when nothing is known."""
    return len({score for (a, b), score in scores.items() if a != b}) < 2


def are_joined(cards: Sequence[Device], scores: Scores) -> bool:
    reached, ahead = {cards[0].uuid}, [cards[0]]
    while ahead:
        here = ahead.pop()
        for card in cards:
            if card.uuid not in reached and link_sum((here, card), scores) >= 100:
                reached.add(card.uuid)
                ahead.append(card)
    return len(reached) == len(cards)


def link_sum(cards: Sequence[Device], scores: Scores) -> int:
    return sum(scores[a.uuid, b.uuid] for a, b in combinations(cards, 2))


def rest(cards: Sequence[Device], scores: Scores) -> int:
    """What the best pair, quad and octet of these cards are worth, an average link counting alike in each."""
    return sum(
        weight * max((link_sum(group, scores) for group in combinations(cards, size)), default=0)
        for size, weight in ((2, 84), (4, 14), (8, 3))
    )


@dataclass
class Trial:
    """One request, to be tried on one node after the other."""

    request: PodRequest
    registry: Registry
    card_policy: str
    limits: Limits
    in_namespace: Mapping[tuple[str, VendorWord], Used]
    request_scored: bool
    link_value: int = 0
    """Pair scores of what was chosen last, for requests that put links first."""
    merit: float = 0
    """What families say of the groups chosen last."""

    def on(self, node: Node) -> Assignment | NodeRefusal:
        self.link_value, self.merit = 0, 0
        containers = self.request.containers
        segments: dict[VendorWord, list[tuple[Share, ...]]] = {
            need.vendor: [()] * len(containers) for container in containers for need in container.needs
        }
        for i, container in enumerate(containers):
            before = node.copy()
            for need in container.needs:
                found = self.need(node, i, container, need, segments)
                if isinstance(found, NodeRefusal):
                    return found
                segments[need.vendor][i] = found
                for share in found:
                    used = node.used[need.vendor, share.uuid]
                    used.slots += 1
                    used.memory += share.memory_mib
                    used.cores += share.cores
            if container.role is Role.INIT:
                node = before
        return Assignment(node=node.record.name, segments={v: tuple(parts) for v, parts in segments.items()})

    def any_way(self, node: Node) -> bool:
        """Whether the sidecars and apps fit on some cards, and then each init container beside the sidecars before."""
        containers = self.request.containers
        staying = [
            (i, need)
            for i, container in enumerate(containers)
            for need in container.needs
            if container.role is not Role.INIT
        ]
        return len(staying) > 1 and any(self.inits_fit(node, given) for given in self.ways(node, staying))

    def ways(
        self, node: Node, needs: Sequence[tuple[int, Need]]
    ) -> Iterator[list[tuple[int, Need, tuple[Device, ...]]]]:
        """Every way to serve these needs together; `node` is as before when the next one is asked for."""
        if not needs:
            yield []
            return
        position, need = needs[0]
        for cards in self.sets(node, position, need):
            self.book(node, need, cards, 1)
            for rest_of_it in self.ways(node, needs[1:]):
                yield [(position, need, cards), *rest_of_it]
            self.book(node, need, cards, -1)

    def book(self, node: Node, need: Need, cards: Sequence[Device], sign: int) -> None:
        for device in cards:
            used, share = node.of(need.vendor, device), self.share(need, device)
            used.slots += sign
            used.memory += sign * share.memory_mib
            used.cores += sign * share.cores

    def sets(self, node: Node, position: int, need: Need) -> list[tuple[Device, ...]]:
        """Every set of cards that serves a need as the node is now, quotas aside."""
        selection = self.request.selections.get(need.vendor, Selection())
        scores = self.scores(node)
        fitting = [
            device
            for vendor, device in node.cards(self.registry)
            if vendor == need.vendor and self.passes(node, need, selection, device)
        ]
        return [
            cards
            for cards in combinations(fitting, need.count)
            if not (selection.numa_bind and len({d.numa for d in cards}) > 1)
            and not (selection.link_bind and not are_joined(cards, scores))
            and (self.registry[need.vendor].choose is None or self.group(node, position, need, cards))
        ]

    def group(self, node: Node, position: int, need: Need, cards: Sequence[Device]) -> Chosen | None:
        """What a family makes of these cards, the most wanted ones first."""
        own = [device for vendor, device in node.cards(self.registry) if vendor == need.vendor]
        spots = [Spot(index=d.index, facts=dict(d.custom), idle=node.of(need.vendor, d).slots == 0) for d in own]
        counts = [sum(n.count for n in c.needs if n.vendor == need.vendor) for c in self.request.containers]
        wanted = Wanted(need=need, of_pod=sum(counts), first=not any(counts[:position]))
        choose = self.registry[need.vendor].choose
        assert choose is not None
        return choose(spots, [own.index(device) for device in cards], wanted)

    def merit_of(self, node: Node, assignment: Assignment) -> float:
        """What families say of an assignment's groups, found container by container; `node` is as before."""
        merit, now = 0.0, node.copy()
        for i, container in enumerate(self.request.containers):
            before = now.copy()
            for need in container.needs:
                uuids = [share.uuid for share in assignment.segments[need.vendor][i]]
                cards = [d for vendor, d in now.cards(self.registry) if vendor == need.vendor and d.uuid in uuids]
                if self.registry[need.vendor].choose is not None:
                    chosen = self.group(now, i, need, cards)
                    assert chosen is not None, f"{uuids} do not go together"
                    merit += chosen.rank
                self.book(now, need, cards, 1)
            now = before if container.role is Role.INIT else now
        return merit

    def passes(self, node: Node, need: Need, selection: Selection, device: Device) -> bool:
        used = node.of(need.vendor, device)
        if not device.healthy or device.uuid in node.unsound or device.uuid in node.record.cordoned:
            return False
        if (selection.uuid_in and device.uuid not in selection.uuid_in) or device.uuid in selection.uuid_out:
            return False
        alone = "mutex" in self.words() or Rule.SHARED not in self.registry[need.vendor].rules
        return (
            self.accepts(selection, device)
            and device.slots > used.slots
            and not (alone and used.slots > 0)
            and self.short_of(node, need, device) is None
        )

    def inits_fit(self, node: Node, given: Sequence[tuple[int, Need, tuple[Device, ...]]]) -> bool:
        containers = self.request.containers
        before = node.copy()
        # `given` is booked on `node`; start from the node without it.
        for _, need, cards in given:
            self.book(before, need, cards, -1)
        for i, container in enumerate(containers):
            if container.role is Role.INIT and container.needs:
                beside = before.copy()
                for position, need, cards in given:
                    if position < i and containers[position].role is Role.SIDECAR:
                        self.book(beside, need, cards, 1)
                if next(self.ways(beside, [(i, need) for need in container.needs]), None) is None:
                    return False
        return True

    def is_right(self, node: Node, assignment: Assignment) -> bool:
        """Whether an assignment serves every need, whatever the order in which it was found; quotas aside."""
        given = []
        for i, container in enumerate(self.request.containers):
            for need in container.needs:
                uuids = {share.uuid for share in assignment.segments[need.vendor][i]}
                devices = tuple(
                    d for vendor, d in node.cards(self.registry) if vendor == need.vendor and d.uuid in uuids
                )
                shares = {self.share(need, device) for device in devices}
                if len(devices) != need.count or shares != set(assignment.segments[need.vendor][i]):
                    return False
                given.append((i, need, devices))
        roles = [container.role for container in self.request.containers]
        for phase in (None, *(i for i, role in enumerate(roles) if role is Role.INIT)):
            now = node.copy()
            for position, need, devices in given:
                together = position == phase or (
                    roles[position] is not Role.INIT
                    if phase is None
                    else roles[position] is Role.SIDECAR and position < phase
                )
                if together:
                    if devices not in self.sets(now, position, need):
                        return False
                    self.book(now, need, devices, 1)
        return True

    def need(
        self,
        node: Node,
        position: int,
        container: ContainerNeed,
        need: Need,
        segments: Mapping[VendorWord, Sequence[tuple[Share, ...]]],
    ) -> tuple[Share, ...] | NodeRefusal:
        selection = self.request.selections.get(need.vendor, Selection())
        cards = [device for vendor, device in node.cards(self.registry) if vendor == need.vendor]
        counts: dict[Why, int] = {}
        largest_free = 0
        largest_cores: int | None = None

        def count(why: Why, by: int = 1) -> None:
            counts[why] = counts.get(why, 0) + by

        scores = self.scores(node)
        vendor_of = self.registry[need.vendor]
        weighed = selection.numa_bind or selection.link_bind or "topology-aware" in self.words() or not uniform(scores)
        weighed = weighed or vendor_of.choose is not None
        # Runs of one NUMA node in the order of visits; a card that is not free may end one.
        groups: list[list[Device]] = [[]]
        numa: int | None = None
        for device in reversed(self.in_order(node, need, selection, cards)):
            used = node.of(need.vendor, device)
            if not device.healthy or device.uuid in node.unsound:
                count(Why.UNHEALTHY)
                continue
            if device.uuid in node.record.cordoned:
                count(Why.CORDONED)
                continue
            if not self.accepts(selection, device):
                count(Why.TYPE_MISMATCH)
                continue
            if selection.numa_bind and device.numa != numa:
                groups.append([])
                numa = device.numa
            group = groups[-1]
            if (selection.uuid_in and device.uuid not in selection.uuid_in) or device.uuid in selection.uuid_out:
                count(Why.UUID_MISMATCH)
                continue
            if device.slots <= used.slots:
                count(Why.SLOTS_EXHAUSTED)
                continue
            alone = "mutex" in self.words() or Rule.SHARED not in self.registry[need.vendor].rules
            if alone and used.slots > 0:
                count(Why.EXCLUSIVE_CONFLICT)
                continue
            largest_free = max(largest_free, device.memory_mib - used.memory)
            others = [] if weighed else [self.share(need, other) for other in group]
            why = self.room(node, position, need, device, [*others, self.share(need, device)], segments)
            if why is not None:
                count(why)
                if why is Why.NO_CORES:
                    largest_cores = max(largest_cores or 0, device.cores - used.cores)
                continue
            group.append(device)
            if len(group) == need.count and not weighed:
                return tuple(self.share(need, taken) for taken in group)
        best: tuple[Device, ...] | None = None
        free = [device for group in groups for device in group]
        for group in groups:
            if len(group) < need.count:
                if group:
                    count(Why.TOO_FEW_PICKED if group is groups[-1] else Why.NUMA_NOT_FIT, len(group))
            elif vendor_of.choose is not None:
                chosen = self.group(node, position, need, group)
                if chosen is None:
                    count(vendor_of.misfit, 1 if vendor_of.misfit is Why.NUMA_NOT_FIT else len(group))
                else:
                    best = tuple(cards[place] for place in chosen.places)
                    self.merit += chosen.rank
            elif (found := self.choose(node, need, selection, group, free, scores)) is None:
                count(Why.LINKS_NOT_FIT, len(group))
            elif best is None or self.outranks(node, need, selection, found, best, free, scores):
                best = found
        if best is not None:
            if "topology-aware" in self.words():
                self.link_value += link_sum(best, scores)
            shares = tuple(self.share(need, device) for device in best)
            if self.within_quota(position, need, shares, segments):
                return shares
            counts = {Why.QUOTA: need.count}
        elif need.count > len(cards):
            counts = {Why.TOO_FEW_DEVICES: 1}
        return NodeRefusal(
            counts=counts,
            devices=len(cards),
            largest_free_mib=largest_free,
            largest_free_cores=largest_cores,
            vendor=need.vendor,
        )

    def scores(self, node: Node) -> Scores:
        """Pair scores of all the node's cards; both ends of a pair must tell it."""
        found: Scores = {}
        known = {inventory.vendor: inventory.links for inventory in node.record.inventories}
        for vendor, a in node.cards(self.registry):
            for other, b in node.cards(self.registry):
                links = known[vendor] if vendor == other else None
                told = 0 if links is None else min(links.score(a.uuid, b.uuid), links.score(b.uuid, a.uuid))
                found[a.uuid, b.uuid] = 0 if a.uuid == b.uuid else max(0, told)
        return found

    def choose(
        self,
        node: Node,
        need: Need,
        selection: Selection,
        group: Sequence[Device],
        free: Sequence[Device],
        scores: Scores,
    ) -> tuple[Device, ...] | None:
        """The best linked of the sets that rank best, the one that leaves the best rest, the first of equals.

        Where none of those is joined as it must be, the best by rank of all that are.
        """
        sets = list(combinations(group, need.count))
        ranks = [self.rank(node, need, selection, device) for device in group[: need.count]]
        best_ranked = [s for s in sets if [self.rank(node, need, selection, d) for d in s] == ranks]
        for these in (best_ranked, sets):
            allowed = [s for s in these if not selection.link_bind or are_joined(s, scores)]
            if allowed:
                return min(allowed, key=lambda s: self.cost(node, need, selection, s, free, scores))
        return None

    def cost(
        self,
        node: Node,
        need: Need,
        selection: Selection,
        cards: Sequence[Device],
        free: Sequence[Device],
        scores: Scores,
    ) -> tuple[float, ...]:
        """Of a set of cards, less is better: the policy's keys, links, and what is left of the cards that would do."""
        ranks = [self.rank(node, need, selection, device) for device in cards]
        left = [device for device in free if device not in cards]
        return (*(sum(values) for values in zip(*ranks, strict=True)), -link_sum(cards, scores), -rest(left, scores))

    def rank(self, node: Node, need: Need, selection: Selection, device: Device) -> tuple[float, ...]:
        """What counts before links, lower first."""
        score, words = self.card_score(node, need, device), self.words()
        if "topology-aware" in words:
            return ()
        chain = {"binpack": -score, "spread": score, "numa": -device.numa}
        if "," in self.card_policy or words == ["numa"]:
            return tuple(chain[word] for word in dict.fromkeys(words) if word in chain) or (score,)
        if words == ["mutex"]:
            return (node.of(need.vendor, device).slots,)
        return (-score,) if words == ["binpack"] else (score,)

    def outranks(
        self,
        node: Node,
        need: Need,
        selection: Selection,
        found: Sequence[Device],
        best: Sequence[Device],
        free: Sequence[Device],
        scores: Scores,
    ) -> bool:
        """Whether a NUMA group's set is better than that of an earlier group."""
        costs = [self.cost(node, need, selection, cards, free, scores) for cards in (found, best)]
        return costs[0] < costs[1] or ("topology-aware" in self.words() and costs[0] == costs[1])

    def room(
        self,
        node: Node,
        position: int,
        need: Need,
        device: Device,
        picked: Sequence[Share],
        segments: Mapping[VendorWord, Sequence[tuple[Share, ...]]],
    ) -> Why | None:
        if not self.within_quota(position, need, picked, segments):
            return Why.QUOTA
        return self.short_of(node, need, device)

    def short_of(self, node: Node, need: Need, device: Device) -> Why | None:
        used, share = node.of(need.vendor, device), self.share(need, device)
        if device.memory_mib - used.memory < share.memory_mib:
            return Why.NO_MEMORY
        if device.cores - used.cores < share.cores:
            return Why.NO_CORES
        exclusive = Rule.FULL_CORES_IS_EXCLUSIVE in self.registry[need.vendor].rules and device.cores <= 100
        if exclusive and need.cores >= 100 and used.slots > 0:
            return Why.EXCLUSIVE_CONFLICT
        if device.cores > 0 and used.cores >= device.cores and share.cores == 0:
            return Why.CORES_EXHAUSTED
        if device.mode == "mig":
            return Why.MIG_INFEASIBLE
        return None

    def within_quota(
        self,
        position: int,
        need: Need,
        picked: Sequence[Share],
        segments: Mapping[VendorWord, Sequence[tuple[Share, ...]]],
    ) -> bool:
        so_far = list(segments[need.vendor])
        so_far[position] = tuple(picked)
        hypothetical = PodRecord(
            uid=self.request.uid,
            key=self.request.key,
            node=NodeName(""),
            roles=tuple(container.role for container in self.request.containers),
            segments={need.vendor: tuple(so_far)},
        )
        asked = pod_usage(hypothetical).values()
        memory, cores = sum(u.memory for u in asked), sum(u.cores for u in asked)
        there = self.in_namespace.get((self.request.key.namespace, need.vendor), Used())
        memory_limit, cores_limit = self.limits.get(need.vendor, (None, None))
        if memory_limit is not None and memory and there.memory + memory > memory_limit:
            return False
        return not (cores_limit is not None and cores and there.cores + cores > cores_limit)

    def share(self, need: Need, device: Device) -> Share:
        memory = need.memory.amount
        if isinstance(need.memory, Percent):
            memory = max(1, int(device.memory_mib * need.memory.amount / 100))
        cores = need.cores
        if cores == 100 and 0 < device.cores < 100:
            cores = device.cores
        return Share(uuid=device.uuid, kind=need.vendor, memory_mib=memory, cores=cores)

    def accepts(self, selection: Selection, device: Device) -> bool:
        model = device.model.lower()
        if selection.type_in and not any(word.lower() in model for word in selection.type_in):
            return False
        if any(word.lower() in model for word in selection.type_out):
            return False
        return selection.mode is None or device.mode in selection.mode

    def words(self) -> list[str]:
        return [word.strip() for word in self.card_policy.split(",") if word.strip()]

    def in_order(self, node: Node, need: Need, selection: Selection, cards: Sequence[Device]) -> list[Device]:
        """Ascending as the policy says; the end is tried first."""

        def key(device: Device) -> tuple[float, ...]:
            score = self.card_score(node, need, device)
            used = node.of(need.vendor, device).slots
            numa, index = device.numa, device.index
            words = self.words()
            if "," in self.card_policy or words == ["numa"]:
                chain = {"binpack": score, "spread": -score, "numa": numa}
                keys = [chain[word] for word in words if word in chain] or [-score, numa]
                return (*([numa] if selection.numa_bind else []), *keys, index)
            match words, selection.numa_bind:
                case ["mutex"], _:
                    return (-used, numa, index)
                case ["binpack"], True:
                    return (-numa, score, index)
                case ["binpack"], False:
                    return (score, numa, index)
                case _, True:
                    return (numa, -score, index)
                case _:
                    return (-score, numa, index)

        return sorted(cards, key=key)

    def card_score(self, node: Node, need: Need, device: Device) -> float:
        used = node.of(need.vendor, device)
        slots, cores, memory = used.slots, used.cores, used.memory
        if self.request_scored or device.model == need.vendor:
            slots += need.count
            cores += need.cores
            memory += self.share(need, device).memory_mib
        score = 0.0
        parts = (slots, device.slots), (cores, device.cores), (memory, device.memory_mib)
        for weight, (part, whole) in zip(self.request.weights, parts, strict=True):
            if whole:
                score = single(score + single(single(weight) * single(single(part) / single(whole))))
        return single(10 * score)
