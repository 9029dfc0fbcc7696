"""Huawei Ascend: one declaration a chip, split by templates of the hardware or, where a node allows it, by software."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.model.claim import Mib, Need, Percent, Segments, Why
from hami.model.container import Container, RequestError, amount, integer
from hami.model.device import HAMI_CORE, Device
from hami.model.groups import dealt, largest_share
from hami.model.names import INT32_MAX, VendorWord, WireError
from hami.model.registration import registered
from hami.model.vendor import (
    Chosen,
    Env,
    NodeFacts,
    Notes,
    Outcome,
    Resources,
    Rule,
    SelectKeys,
    Shaped,
    ShapeError,
    Spot,
    Terms,
    Vendor,
    Wanted,
)
from hami.model.wire import gojson

MODE: Final = "huawei.com/vnpu-mode"
NODE_MODE: Final = "hami-vnpu-core"
"""Node annotation: whether software may split its NPUs; wins over the configuration."""
TIME: Final = "predicate-time"
TEMPLATES_ONLY: Final = "vnpu"
"""Mode of NPUs that only the hardware splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One way in which the hardware splits an NPU."""

    name: str
    memory_mib: int
    ai_cores: int = 0
    ai_cpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What the configuration says of a chip; the methods are its declaration's functions."""

    word: str
    allocatable_mib: int
    capacity_mib: int
    ai_cores: int = 0
    ai_cpus: int = 0
    templates: tuple[Template, ...] = ()
    """Smallest memory first."""
    super_pod: bool = False
    """NPUs come in modules of two."""
    soft: bool = False
    """Software may split NPUs where their node does not say otherwise."""

    def cut(self, memory_mib: int) -> Template | None:
        """What an amount of memory takes: the smallest template that holds it, None = the whole card."""
        return next((one for one in self.templates if one.memory_mib >= memory_mib), None)

    def parts(self, memory_mib: int) -> tuple[int, int]:
        """AI cores and AI CPUs that go with booked memory; none where it is neither a template nor the whole card."""
        one = self.cut(memory_mib)
        if one is not None:
            return one.ai_cores, one.ai_cpus
        return (self.ai_cores, self.ai_cpus) if memory_mib >= self.allocatable_mib else (0, 0)

    def read(self, facts: NodeFacts, vendor: Vendor, problems: list[WireError]) -> tuple[Device, ...] | None:
        """The registered NPUs with their budgets, and with the mode that their node allows."""
        said = facts.annotations.get(NODE_MODE)
        mode = HAMI_CORE if (self.soft if said is None else said == "true") else TEMPLATES_ONLY
        # What the configuration does not name is not counted.
        parts = self.ai_cores or INT32_MAX, self.ai_cpus or INT32_MAX
        devices = registered(facts, vendor, problems)
        return devices and tuple(replace(device, mode=mode, parts=parts) for device in devices)

    def shape(self, container: Container, notes: Notes, vendor: Vendor) -> Shaped:
        """Counts of whole modules, and memory as it will be cut, in limits and in requests."""
        names, factor = vendor.resources, vendor.memory_factor
        count = integer(container, names.count, low=1, kinds=("limits",)) or 0
        where = f"{container.path}.resources.limits"
        count = 2 if self.super_pod and count == 1 else count
        if self.super_pod and count % 2:
            raise ShapeError(f"{where}[{names.count}]", f"{names.count} must be 1 or 2*n")
        cores = amount(container, names.cores, ("limits",))
        soft = notes.get(MODE) == HAMI_CORE
        if not soft and cores is not None and cores[0] > 0:
            raise ShapeError(f"{where}[{names.cores}]", f"{names.cores} needs the annotation {MODE}: {HAMI_CORE}")
        written = amount(container, names.memory, ("limits",))
        units = -(-written[0].numerator // written[0].denominator) if written else 0
        one = self.cut(units * factor) if units else None
        if not 0 <= units * factor <= self.capacity_mib:
            raise ShapeError(f"{where}[{names.memory}]", f"{names.memory} {units} is invalid")
        if not soft and count > 1 and one is not None:
            raise ShapeError(f"{where}[{names.memory}]", "vNPU not supported for multiple devices")
        if not units or not soft:
            units = (self.allocatable_mib if one is None else one.memory_mib) // factor
        return Shaped(
            limits={names.count: count, names.memory: units} if self.super_pod else {names.memory: units},
            requests_too=frozenset({names.memory}),
        )

    def refine(self, need: Need, container: Container, notes: Notes, vendor: Vendor) -> Need:
        """A request as the hardware cuts it, with its AI cores and AI CPUs; in soft mode as it is written."""
        if notes.get(MODE) == HAMI_CORE:
            return replace(need, full_cores=100)
        if isinstance(need.memory, Percent):
            return replace(need, parts=(self.ai_cores, self.ai_cpus))
        where, asked = f"{container.path}.resources.limits[{vendor.resources.memory}]", need.memory.amount
        if asked > self.capacity_mib:
            raise RequestError(where, f"at most {self.capacity_mib} MiB", asked)
        one = self.cut(asked)
        if one is not None and need.count > 1:
            raise RequestError(where, "whole cards where there are several", asked)
        booked = Mib(self.allocatable_mib if one is None else one.memory_mib)
        return replace(need, memory=booked, parts=self.parts(booked.amount))

    def choose(self, spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
        """Whole modules of a 910C; else NPUs of one network, where all are known to be in one."""
        networks = [spot.facts.get("NetworkID") for spot in spots]
        known, want = None not in networks, wanted.need.count
        places: Sequence[int] | None = order[:want]
        if self.super_pod and want > 1:
            whole = [i for i in order if sum(spots[j].index // 2 == spots[i].index // 2 for j in order) == 2]
            places = sorted(whole, key=lambda i: min(whole.index(j) for j in whole if _module(spots, i, j)))[:want]
        elif known and wanted.most > 1 and (want > 1 or spots[order[0]].idle):
            # A container of one NPU takes one that the others of its pod can spare.
            idle = order if want > 1 else [i for i in order if spots[i].idle]
            own = [i for i, spot in enumerate(spots) if spot.own and not spot.idle]
            places = dealt(len(spots), idle, (want, *wanted.later), lambda i: networks[i], own)
        if places is None or len(places) < want:
            return None
        together = 10 * largest_share([networks[i] for i in places]) if known else 0.0
        return Chosen(places=tuple(places), rank=together)

    def recall(self, segments: Segments, notes: Notes, vendor: Vendor) -> Segments:
        """AI cores and AI CPUs follow from the memory; software shares both as it runs."""
        if notes.get(MODE) == HAMI_CORE:
            return segments
        return tuple(
            tuple(replace(share, parts=self.parts(share.memory_mib)) for share in segment) for segment in segments
        )

    def dress(self, outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
        """The list from which the plug-in takes each container's template."""
        soft = outcome.notes.get(MODE) == HAMI_CORE
        entries = []
        for share in (share for segment in outcome.segments for share in segment):
            one = None if soft else self.cut(share.memory_mib)
            entry = {
                "UUID": share.uuid,
                "temp": one.name if one else "",
                "memory": share.memory_mib,
                "core": share.cores,
            }
            entries.append({key: value for key, value in entry.items() if value})
        return {f"huawei.com/{self.word}": gojson.encode(entries), TIME: str(outcome.now_unix)}


def _module(spots: Sequence[Spot], a: int, b: int) -> bool:
    return spots[a].index // 2 == spots[b].index // 2


def declared(chip: Chip) -> Vendor:
    """The declaration of one chip, with the chart's names."""
    return Vendor(
        name=VendorWord(chip.word),
        config_section="vnpus",
        resources=Resources(
            count=f"huawei.com/{chip.word}",
            memory=f"huawei.com/{chip.word}-memory",
            cores=f"huawei.com/{chip.word}-core",
        ),
        node_key=f"hami.io/node-register-{chip.word}",
        pending_key=f"hami.io/{chip.word}-devices-to-allocate",
        done_key=f"hami.io/{chip.word}-devices-allocated",
        handshake_key=f"hami.io/node-handshake-{chip.word}",
        select=SelectKeys(
            uuid_in=f"hami.io/use-{chip.word}-uuid",
            uuid_out=f"hami.io/no-use-{chip.word}-uuid",
            mode=MODE,
            mode_words=frozenset({HAMI_CORE}),
        ),
        env=Env(visible="ASCEND_VISIBLE_DEVICES", hidden=""),
        rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.CORES_AS_ASKED | Rule.MODE_OF_NODE,
        default_count=0,
        takes_factor=True,
        read=chip.read,
        shape=chip.shape,
        refine=chip.refine,
        choose=chip.choose if chip.word.startswith("Ascend910") else None,
        misfit=Why.TOO_FEW_PICKED,
        recall=chip.recall,
        dress=chip.dress,
        terms=Terms(parts=("AI cores", "AI CPUs")),
        dress_keys=(f"huawei.com/{chip.word}", TIME),
    )
