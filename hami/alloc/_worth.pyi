"""What Python sees of the worth of nodes; `table.py` is the only importer."""

from array import array

FOREVER: int
NUMBERS: dict[str, int]

class Worth:
    evaluated: int
    def attach_rows(
        self,
        *,
        kind: array[int],
        flags: array[int],
        slots: array[int],
        slots_used: array[int],
        memory: array[int],
        memory_used: array[int],
        cores: array[int],
        cores_used: array[int],
        grid: array[int],
    ) -> None: ...
    def attach_nodes(
        self,
        *,
        first: array[int],
        length: array[int],
        cpu: array[int],
        host: array[int],
        version: array[int],
        whole: array[int],
        left: array[int],
    ) -> None: ...
    def touched(self, node: int) -> None: ...
    def remember(self, case: int) -> None: ...
    def draw(
        self,
        cases: list[tuple[float, int, int, list[tuple[int, int, bool, int, bool, int, int]]]],
        verdicts: bytes,
        card_mib: float,
    ) -> None: ...
    def sequences(self, node: int) -> list[list[int]]: ...
    def totals_hold(self) -> bool: ...
    def fragments(self) -> float: ...
    def state_value(self, node: int) -> float: ...
