"""The typed face of the engine: keeps the columns, packs a request, unpacks the winner.

Columns are arrays of the standard library that grow by doubling; the engine sees the same memory. A node owns a block
of adjacent rows. A block given back is used again by the next node of as many devices, so that coming and going nodes
leave no holes. Who holds what is the ledger's; here it is only numbers.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from hami.alloc._ask import NO_LIMIT, NUMBERS, Ask
from hami.alloc._fit import Engine
from hami.alloc._worth import FOREVER
from hami.alloc.demand import Demand
from hami.alloc.encode import LARGEST, Kind, amounts, by_nibble, judge, measured, own_keys, rules_of, single, wanted_of
from hami.alloc.groups import Groups
from hami.alloc.links import LinkTables
from hami.alloc.mig import CardProfiles
from hami.alloc.policy import card_policy
from hami.alloc.slices import Grids, SliceNeed, Taken, Wishes
from hami.model.claim import ANY_DEVICE, Assignment, MigReservation, Need, Percent, PodRequest, Role, Selection, Share
from hami.model.device import MIG, Device, Links
from hami.model.host import Host
from hami.model.names import INT32_MAX, DeviceUuid, NodeName, VendorWord
from hami.model.vendor import Registry, Rule, Vendor

_HEALTHY: Final = NUMBERS["ROW_HEALTHY"]
_CORDONED: Final = NUMBERS["ROW_CORDONED"]
_UNSOUND: Final = NUMBERS["ROW_UNSOUND"]
_ROLES: Final = {role: NUMBERS[role.name] for role in Role}
_ROW_COLUMNS: Final = {
    "kind": "i",
    "numa": "i",
    "flags": "B",
    "marks": "B",
    "slots": "q",
    "slots_used": "q",
    "memory": "q",
    "memory_used": "q",
    "cores": "q",
    "cores_used": "q",
    "grid": "i",
    "taken": "i",
    "part_a": "i",
    "part_a_used": "i",
    "part_b": "i",
    "part_b_used": "i",
    "left": "I",
    "pull": "i",
    "board": "i",
    "spot": "i",
}
_HELD_COLUMNS: Final = (
    "slots_used", "memory_used", "cores_used", "part_a_used", "part_b_used", "marks", "left", "pull", "taken",
)  # fmt: skip
_SUMS: Final = ("slots", "memory", "cores")
_NODE_COLUMNS: Final = {
    "first": "i",
    "length": "i",
    "salt": "Q",
    "seen": "I",
    "same_kind": "i",
    "links": "i",
    "score_now": "f",
    **{f"sum_{name}": "q" for name in _SUMS},
    **{f"sum_{name}_used": "q" for name in _SUMS},
    "cpu": "q",
    "host": "q",
    "version": "I",
    "whole": "i",
    "left": "q",
}
_WORTH_ROWS: Final = (
    "kind", "flags", "slots", "slots_used", "memory", "memory_used", "cores", "cores_used", "grid",
)  # fmt: skip
_WORTH_NODES: Final = ("first", "length", "cpu", "host", "version", "whole", "left")
_WORTH_ONLY: Final = frozenset(_WORTH_NODES) - {"first", "length"}
CASES: Final = 512
"""Kinds of requests whose costs are remembered, 16 bytes a node each."""
PACKS: Final = 256
"""Requests that are kept as the engine reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One device of a node as it is placed on: its family, and whether it takes new work."""

    vendor: VendorWord
    device: Device
    cordoned: bool = False


NO_FAMILIES: Final = Registry(())
NOTHING_TO_DO: Final = nullcontext()
"""Around a decision that nothing has to be done for, as most are: it holds no state, so one serves all."""


class Table:
    """Columns of every device of the cluster, and the numbers that stand for names."""

    def __init__(self, registry: Registry = NO_FAMILIES) -> None:
        self.engine = Engine()
        self.groups = Groups(registry, self.engine.boards)
        self.ids: dict[str, int] = {}
        """Registered nodes: name to number."""
        self.names: list[NodeName] = []
        """Number to name; a number without a node has an empty name and no rows."""
        self.columns = {name: array(code, bytes(array(code).itemsize)) for name, code in _ROW_COLUMNS.items()}
        self.node_columns: dict[str, array[Any]] = {
            name: array(code, bytes(array(code).itemsize)) for name, code in _NODE_COLUMNS.items()
        }
        self.cards: list[Card | None] = []
        self._free_ids: list[int] = []
        self._free_blocks: dict[int, list[int]] = {}
        self._nodes_by_uuid: dict[DeviceUuid, NodeName | tuple[NodeName, ...]] = {}
        """The node that lists a device, or several: never meant, but it happens. Names, as they are there anyway."""
        self._kinds: dict[Kind, int] = {}
        self.links = LinkTables()
        self.grids = Grids()
        self._cut: set[NodeName] = set()
        self._verdicts: dict[tuple[VendorWord, Selection, bool, Rule], bytes] = {}
        self._cases: dict[object, int] = {}
        self._packs: dict[object, Ask] = {}
        self._drawn_kinds = 0
        self._attach()

    def put(self, name: NodeName, cards: Sequence[Card], links: Mapping[VendorWord, Links] | None = None) -> None:
        """Register a node with at least one card, all unused, in the order in which complete ties stand.

        `links` are the pair scores by family; without any, its cards are not known to be connected.
        """
        self.drop(name)
        self._packs.clear()
        node = self._claim_id(name)
        first = self._claim_block(len(cards))
        self.node_columns["first"][node] = first
        self.node_columns["length"][node] = len(cards)
        self.node_columns["salt"][node] = salt(name)
        self.node_columns["links"][node] = self.links.connect(
            name, [(c.vendor, c.device.uuid) for c in cards], links or {}
        )
        for row, card in enumerate(cards, first):
            self._write(name, row, card)
        for position, board, spot in self.groups.lay([(card.vendor, card.device) for card in cards]):
            self.columns["board"][first + position] = board
            self.columns["spot"][first + position] = spot
        self.engine.attach_links(self.links.tables)
        self.engine.attach_grids(self.grids.native)
        if any(card.device.mode == MIG for card in cards):
            self._cut.add(name)
        for total in _SUMS:
            self.node_columns[f"sum_{total}"][node] = sum(self.columns[total][first : first + len(cards)])
            self.node_columns[f"sum_{total}_used"][node] = 0
        self.engine.renew(node)
        self.node_columns["cpu"][node] = self.node_columns["host"][node] = FOREVER
        self.engine.widen(len(cards))
        self.engine.free_worth.touched(node)

    def drop(self, name: NodeName) -> None:
        """Forget a node and its devices; nothing happens if it is not there."""
        node = self.ids.pop(name, None)
        if node is None:
            return
        self._packs.clear()
        first, length = self.node_columns["first"][node], self.node_columns["length"][node]
        for row in range(first, first + length):
            self._unlist(name, row)
            self.grids.leave(self.columns["grid"][row])
            self.columns["grid"][row] = -1
        self.links.disconnect(name)
        self._cut.discard(name)
        self.node_columns["length"][node] = 0
        self.engine.free_worth.touched(node)
        # Answers of earlier surveys keep the list they were given.
        self.names = [*self.names[:node], NodeName(""), *self.names[node + 1 :]]
        self._free_ids.append(node)
        self._free_blocks.setdefault(length, []).append(first)

    def span(self, name: NodeName) -> range:
        """The rows of a node; empty when it is not registered."""
        node = self.ids.get(name)
        if node is None:
            return range(0)
        first = self.node_columns["first"][node]
        return range(first, first + self.node_columns["length"][node])

    def row(self, name: NodeName, vendor: VendorWord, uuid: DeviceUuid) -> int | None:
        """The row of one device of a node."""
        for row in self.span(name):
            card = self.cards[row]
            if card is not None and card.device.uuid == uuid and card.vendor == vendor:
                return row
        return None

    def book(
        self, name: NodeName, row: int, slots: int, memory_mib: int, cores: int, parts: tuple[int, int] = (0, 0)
    ) -> None:
        """Add to what is held of a device; negative numbers give back."""
        self.columns["part_a_used"][row] += parts[0]
        self.columns["part_b_used"][row] += parts[1]
        self.engine.book(self.ids[name], row, slots, memory_mib, cores)

    def offer(self, name: NodeName, left: Host | None) -> None:
        """What a registered node has left beside devices; None = it does not say, so it never runs out."""
        node = self.ids.get(name)
        if node is not None:
            self.node_columns["cpu"][node] = FOREVER if left is None else left.cpu_milli
            self.node_columns["host"][node] = FOREVER if left is None else left.memory_mib
            self.engine.free_worth.touched(node)

    def check_offer(self, name: NodeName, left: Host | None) -> None:
        """AssertionError if a registered node's columns say other than this."""
        node = self.ids[name]
        kept = self.node_columns["cpu"][node], self.node_columns["host"][node]
        expected = (FOREVER, FOREVER) if left is None else (left.cpu_milli, left.memory_mib)
        assert kept == expected, f"{name}: columns say {kept} left of the host, records {expected}"
        assert self.engine.free_worth.totals_hold(), "sums of free devices differ"

    def check_glances(self, name: NodeName) -> None:
        """AssertionError if what stands in place of a registered node's columns is older than these."""
        span = self.span(name)
        kept = [self.engine.glance(row) for row in span]
        self.engine.renew(self.ids[name])
        assert kept == [self.engine.glance(row) for row in span], f"{name}: glances differ from its columns"

    @property
    def knows_new_kinds(self) -> bool:
        """Whether kinds of devices have come since the last drawing, which nobody is known to want."""
        return len(self._kinds) > self._drawn_kinds

    def draw(self, demand: Demand, registry: Registry) -> None:
        """Value the nodes by what is asked now."""
        self._drawn_kinds = len(self._kinds)
        verdicts = b""
        offsets: dict[tuple[VendorWord, Selection], int] = {}
        cases = []
        for kind, weight in demand.weights():
            wants = []
            for want in kind.wants:
                key = want.vendor, want.selection
                if key not in offsets:
                    offsets[key] = len(verdicts)
                    verdicts += self._verdict(want.vendor, want.selection, False, registry[want.vendor].rules)
                rules = registry[want.vendor].rules
                wants.append(
                    (
                        min(want.count, len(self.cards) + 1),
                        min(want.memory.amount, INT32_MAX),
                        isinstance(want.memory, Percent),
                        want.cores,
                        Rule.SHARED not in rules or (Rule.FULL_CORES_IS_EXCLUSIVE in rules and want.cores >= 100),
                        offsets[key],
                        len(self._kinds),
                    )
                )
            cases.append((weight, kind.host.cpu_milli, kind.host.memory_mib, wants))
        self._packs.clear()
        asked = [
            (want.memory, want.cores, weight * want.count)
            for kind, weight in demand.weights()
            for want in kind.wants
            if Rule.MIG in registry[want.vendor].rules and (want.selection.mode is None or MIG in want.selection.mode)
        ]
        for profiles in self.grids.compiled:
            if profiles is not None:
                profiles.learn(asked)
        cards = sum(card is not None for card in self.cards)
        memory = sum(card.device.memory_mib for card in self.cards if card is not None)
        self.engine.free_worth.draw(cases, verdicts, memory / max(1, cards))

    def is_cut(self, name: NodeName) -> bool:
        """Whether some card of a node is in MIG mode."""
        return name in self._cut

    def cut(self, name: NodeName) -> list[tuple[Card, CardProfiles | None]]:
        """Every card of a node, those in MIG mode with their compiled profiles."""
        grids = self.columns["grid"]
        return [
            (card, self.grids.compiled[grids[row]] if grids[row] >= 0 else None)
            for row in self.span(name)
            if (card := self.cards[row]) is not None
        ]

    def slice(self, row: int, taken: Taken) -> None:
        """What pods hold of a card's slices now."""
        self.columns["taken"][row] = taken.state
        flags = self.columns["flags"]
        flags[row] = flags[row] & ~_UNSOUND if taken.sound else flags[row] | _UNSOUND
        self.engine.relook(row)

    def stand(self, row: int, left: int, pull: int) -> None:
        """The marks that shares have left on a device, and how much its family prefers it."""
        self.columns["left"][row] = left
        self.columns["pull"][row] = pull

    def taken(self, row: int) -> Taken:
        """What pods hold of a card's slices, as last told."""
        return Taken(self.columns["taken"][row], not self.columns["flags"][row] & _UNSOUND)

    def pack(
        self,
        request: PodRequest,
        registry: Registry,
        *,
        card_policy_word: str,
        left: Mapping[VendorWord, tuple[int | None, int | None]],
        request_scored: bool,
        by_price: bool = False,
        spread: bool | None = False,
    ) -> Ask:
        """A request as the engine reads it. `left` is what quotas still allow, (MiB, cores) by family; `by_price` says
        that nodes will be ranked by what they lose, `spread` that the emptiest is preferred (None: by neither of the
        two words that families with ranks of their own know).

        Kept until a node comes or goes, because pods of one workload ask alike; not where nodes are ranked by loss,
        whose numbers of cases are handed out again.
        """
        key = None if by_price else (
            request.containers, tuple(request.selections.items()), request.weights, request.host, card_policy_word,
            tuple(left.items()), request_scored, spread,
        )  # fmt: skip
        if key is not None and (packed := self._packs.get(key)) is not None:
            return packed
        if self.groups.trim():
            self._packs.clear()
        made = self._packed(request, registry, card_policy_word, left, request_scored, by_price, spread)
        if key is not None:
            if len(self._packs) >= PACKS:
                self._packs.clear()
            self._packs[key] = made
        return made

    def _packed(
        self,
        request: PodRequest,
        registry: Registry,
        card_policy_word: str,
        left: Mapping[VendorWord, tuple[int | None, int | None]],
        request_scored: bool,
        by_price: bool,
        spread: bool | None,
    ) -> Ask:
        verdicts = b""
        offsets: dict[VendorWord, int] = {}
        needs: list[tuple[Any, ...]] = []
        sliced: list[SliceNeed | None] = []
        together = True
        for container, asking in enumerate(request.containers):
            for asked in asking.needs:
                vendor = registry[asked.vendor]
                need = single(request, asked, vendor)
                selection = request.selections.get(need.vendor, ANY_DEVICE)
                if need.vendor not in offsets:
                    offsets[need.vendor] = len(verdicts)
                    verdicts += self._verdict(need.vendor, selection, request_scored, vendor.rules)
                policy = card_policy(card_policy_word, numa_bind=selection.numa_bind)
                memory_left, cores_left = left.get(need.vendor, (None, None))
                self.links.prepare(need.count, selection.link_bind)
                # Instances have no links, so several joined ones are not to be had.
                has_mig = Rule.MIG in vendor.rules and not (selection.link_bind and need.count > 1)
                sliced.append(
                    SliceNeed(container, asking.role, need.memory, need.cores, need.count) if has_mig else None
                )
                together = together and not (has_mig and (policy.mutex or selection.numa_bind))
                grouped = vendor.choose is not None and not need.apart
                wanted = wanted_of(request, need, container, policy, spread) if grouped else None
                kinds, sizes = offsets[need.vendor], self._sizes(need, vendor)
                if vendor.measure is not None:
                    kinds = len(verdicts)
                    known = self._verdict(need.vendor, selection, request_scored, vendor.rules)
                    verdicts += bytes(map(measured, known, sizes))
                needs.append(
                    (
                        container,
                        _ROLES[asking.role],
                        list(offsets).index(need.vendor),
                        max((size.count for size in sizes if size), default=need.count),
                        min(need.memory.amount, LARGEST),
                        need.cores,
                        rules_of(selection, vendor, need, policy),
                        by_nibble(own_keys(vendor, need) + policy.keys),
                        by_nibble(own_keys(vendor, need) + policy.ranked),
                        kinds,
                        NO_LIMIT if memory_left is None else memory_left,
                        NO_LIMIT if cores_left is None else cores_left,
                        need.slots,
                        *need.parts,
                        need.leaves,
                        need.no_class,
                        need.no_qos,
                        need.pulled,
                        need.full_cores,
                        -1 if wanted is None else self.groups.number(wanted),
                        vendor.misfit_alone if policy.mutex and vendor.misfit_alone is not None else vendor.misfit,
                        tuple(
                            (
                                *amounts(size or need),
                                -1
                                if vendor.choose is None
                                else self.groups.number(wanted_of(request, size or need, container, policy, spread)),
                            )
                            for size in sizes
                        ),
                    )
                )
        wishes = Wishes(self.grids, sliced, together=together)
        by_loss = any(need[6] & NUMBERS["BY_LOSS"] for need in needs)
        case = -1
        if by_price and not any(part is not None for pair in left.values() for part in pair):
            case = self._case(request, tuple(needs), card_policy_word)
        weighed = (by_price or by_loss, by_price, case, request.host.cpu_milli, request.host.memory_mib)
        return Ask(needs, verdicts, request.weights, wishes.wishes, wishes.plans, wishes.joints, weighed)

    def marked(self, request: PodRequest) -> AbstractContextManager[None]:
        """The rows that the request's UUID lists name carry their marks for the time of one decision."""
        if any(selection.uuid_in or selection.uuid_out for selection in request.selections.values()):
            return self._marked(request)
        return NOTHING_TO_DO

    @contextmanager
    def _marked(self, request: PodRequest) -> Iterator[None]:
        touched: list[int] = []
        for vendor, selection in request.selections.items():
            for name, uuids in (("MARK_CHOSEN", selection.uuid_in), ("MARK_BARRED", selection.uuid_out)):
                for uuid in uuids:
                    for row in self._rows_of(uuid):
                        if (card := self.cards[row]) is not None and card.vendor == vendor:
                            self.columns["marks"][row] |= NUMBERS[name]
                            touched.append(row)
        try:
            yield
        finally:
            for row in touched:
                self.columns["marks"][row] = 0

    def assignment(
        self,
        request: PodRequest,
        registry: Registry,
        node: NodeName,
        choices: Sequence[tuple[int, int, int, int, int]],
    ) -> Assignment:
        """The engine's choices (need, row, MiB, cores, MIG place) as shares, one segment a container for every family
        asked, and as reservations."""
        # One row a need: everything that its shares have in common.
        asked = [
            (container, need, registry[need.vendor], Rule.KIND_IS_MODEL in registry[need.vendor].rules)
            for container, asking in enumerate(request.containers)
            for need in asking.needs
        ]
        segments: dict[VendorWord, list[list[Share]]] = {
            need.vendor: [[] for _ in request.containers] for _, need, _, _ in asked
        }
        reservations: list[MigReservation] = []
        for index, row, memory_mib, cores, place in choices:
            container, need, vendor, by_model = asked[index]
            card = self.cards[row]
            assert card is not None, "the engine chose a row without a device"
            device = card.device
            if vendor.measure is not None:
                need = vendor.measure(need, device.mode) or need
            segment = segments[vendor.name][container]
            if place >= 0:
                profiles = self.grids.compiled[self.columns["grid"][row]]
                assert profiles is not None, "the engine cut a card without profiles"
                profile, placement = profiles.instance_of(place)
                reservations.append(
                    MigReservation(
                        container=container,
                        device=len(segment),
                        uuid=device.uuid,
                        profile=profile.name,
                        placement=placement,
                    )
                )
            segment.append(
                Share(
                    uuid=device.uuid,
                    kind=device.model if by_model else vendor.name,
                    memory_mib=memory_mib,
                    cores=cores,
                    slots=need.slots,
                    parts=need.parts,
                    leaves=need.leaves,
                )
            )
        return Assignment(
            node=node,
            segments={vendor: tuple(map(tuple, parts)) for vendor, parts in segments.items()},
            reservations=tuple(reservations),
        )

    def _sizes(self, need: Need, vendor: Vendor) -> list[Need | None]:
        """What a need comes to by kind of device, of families that say so; None where they never serve it."""
        if vendor.measure is None:
            return []
        return [vendor.measure(need, kind.mode) if kind.vendor == vendor.name else None for kind in self._kinds]

    def _case(self, request: PodRequest, needs: tuple[object, ...], card_policy_word: str) -> int:
        """The number under which costs of such requests are remembered, or -1 where none may be: single cards count."""
        if any(selection.uuid_in or selection.uuid_out for selection in request.selections.values()):
            return -1
        key = (needs, tuple(request.selections.items()), card_policy_word, request.weights, request.host)
        number = self._cases.pop(key, None)
        if number is None:
            number = len(self._cases)
            if number >= CASES:
                number = self._cases.pop(next(iter(self._cases)))
            self.engine.free_worth.remember(number)
        self._cases[key] = number  # used last, forgotten last
        return number

    def _verdict(self, vendor: VendorWord, selection: Selection, request_scored: bool, rules: Rule) -> bytes:
        """One byte a kind: does it count, and is it accepted. Kept, because pods of one workload ask alike."""
        key = (vendor, selection, request_scored, rules)
        if (known := self._verdicts.get(key)) is None:
            if len(self._verdicts) >= 256:
                self._verdicts.clear()
            known = bytes(judge(kind, vendor, selection, request_scored, rules) for kind in self._kinds)
            self._verdicts[key] = known
        return known

    def _write(self, name: NodeName, row: int, card: Card) -> None:
        device, columns = card.device, self.columns
        kind = Kind(card.vendor, device.model, device.mode)
        if kind not in self._kinds:
            self._kinds[kind] = len(self._kinds)
            self._verdicts.clear()
        columns["kind"][row] = self._kinds[kind]
        columns["numa"][row] = device.numa
        columns["flags"][row] = (_HEALTHY if device.healthy else 0) | (_CORDONED if card.cordoned else 0)
        columns["slots"][row] = device.slots
        columns["memory"][row] = device.memory_mib
        columns["cores"][row] = device.cores
        columns["part_a"][row], columns["part_b"][row] = device.parts
        for column in _HELD_COLUMNS:
            columns[column][row] = 0
        columns["grid"][row] = self.grids.join(device)
        self.cards[row] = card
        known = self._nodes_of(device.uuid)
        if name not in known:
            self._nodes_by_uuid[device.uuid] = (*known, name) if known else name

    def _unlist(self, name: NodeName, row: int) -> None:
        card = self.cards[row]
        assert card is not None, "a node's row has no device"
        self.cards[row] = None
        rest = tuple(other for other in self._nodes_of(card.device.uuid) if other != name)
        if rest:
            self._nodes_by_uuid[card.device.uuid] = rest if len(rest) > 1 else rest[0]
        else:
            self._nodes_by_uuid.pop(card.device.uuid, None)

    def _nodes_of(self, uuid: DeviceUuid) -> tuple[NodeName, ...]:
        nodes = self._nodes_by_uuid.get(uuid, ())
        return nodes if isinstance(nodes, tuple) else (nodes,)

    def _rows_of(self, uuid: DeviceUuid) -> list[int]:
        """Rows of every device of that UUID."""
        return [
            row
            for name in self._nodes_of(uuid)
            for row in self.span(name)
            if (card := self.cards[row]) is not None and card.device.uuid == uuid
        ]

    def _claim_id(self, name: NodeName) -> int:
        if self._free_ids:
            node = self._free_ids.pop()
            self.names = [*self.names[:node], name, *self.names[node + 1 :]]
        else:
            node = len(self.names)
            self.names.append(name)
            if node >= len(self.node_columns["first"]):
                self.node_columns = {key: _doubled(column, node + 1) for key, column in self.node_columns.items()}
                self._attach()
        self.ids[name] = node
        return node

    def _claim_block(self, length: int) -> int:
        if free := self._free_blocks.get(length):
            return free.pop()
        first = len(self.cards)
        self.cards.extend([None] * length)
        if len(self.cards) > len(self.columns["kind"]):
            self.columns = {key: _doubled(column, len(self.cards)) for key, column in self.columns.items()}
            self._attach()
        return first

    def _attach(self) -> None:
        self.engine.attach_rows(**self.columns)
        nodes = self.node_columns
        self.engine.attach_nodes(**{name: column for name, column in nodes.items() if name not in _WORTH_ONLY})
        self.engine.free_worth.attach_rows(**{name: self.columns[name] for name in _WORTH_ROWS})
        self.engine.free_worth.attach_nodes(**{name: nodes[name] for name in _WORTH_NODES})


def salt(text: str) -> int:
    """64 bits that tell names apart, equal in every process: ties between equal nodes are broken by them."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _doubled(column: "array[Any]", least: int) -> "array[Any]":
    larger = array(column.typecode, column)
    larger.extend(bytes(max(least, 2 * len(column)) - len(column)))
    return larger
