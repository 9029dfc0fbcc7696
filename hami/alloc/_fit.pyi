"""What Python sees of the engine; `table.py` keeps the one there is, `place.py` reads what a survey found."""

from array import array
from collections.abc import Mapping, Sequence

from hami.alloc._ask import Ask
from hami.alloc._boards import Boards
from hami.alloc._mig import Profiles
from hami.alloc._topology import Links
from hami.alloc._worth import Worth
from hami.model.names import NodeName

class Survey:
    fitting: int
    refused: int
    unknown: list[str]
    @property
    def best(self) -> int: ...
    def ranking(self, count: int) -> list[tuple[NodeName, float]]: ...
    def refusals(self) -> list[NodeName]: ...
    def tally(self, position: int) -> bytes: ...

class Engine:
    free_worth: Worth
    boards: Boards
    def attach_rows(
        self,
        *,
        kind: array[int],
        numa: array[int],
        flags: array[int],
        marks: array[int],
        slots: array[int],
        slots_used: array[int],
        memory: array[int],
        memory_used: array[int],
        cores: array[int],
        cores_used: array[int],
        grid: array[int],
        taken: array[int],
        part_a: array[int],
        part_a_used: array[int],
        part_b: array[int],
        part_b_used: array[int],
        left: array[int],
        pull: array[int],
        board: array[int],
        spot: array[int],
    ) -> None: ...
    def attach_nodes(
        self,
        *,
        first: array[int],
        length: array[int],
        salt: array[int],
        seen: array[int],
        same_kind: array[int],
        links: array[int],
        score_now: array[float],
        sum_slots: array[int],
        sum_slots_used: array[int],
        sum_memory: array[int],
        sum_memory_used: array[int],
        sum_cores: array[int],
        sum_cores_used: array[int],
    ) -> None: ...
    def attach_links(self, tables: list[Links | None]) -> None: ...
    def attach_grids(self, profiles: list[Profiles | None]) -> None: ...
    def widen(self, rows: int) -> None: ...
    def book(self, node: int, row: int, slots: int, memory: int, cores: int) -> None: ...
    def survey(
        self,
        ask: Ask,
        names: list[NodeName],
        ids: Mapping[str, int],
        candidates: Sequence[str] | None,
        pod_salt: int,
        spread: bool,
    ) -> Survey: ...
    def assign(self, ask: Ask, node: int) -> tuple[list[tuple[int, int, int, int, int]] | None, bytes]: ...
    def renew(self, node: int) -> None: ...
    def relook(self, row: int) -> None: ...
    def glance(self, row: int) -> int: ...
    def score_of(self, node: int) -> float: ...
