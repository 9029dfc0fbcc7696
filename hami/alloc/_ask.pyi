"""What Python sees of a packed request; `table.py` makes them."""

from typing import Any

from hami.alloc._mig import Plan, Wish

NO_LIMIT: int
NUMBERS: dict[str, int]

class Ask:
    count: int
    def __init__(
        self,
        needs: list[tuple[Any, ...]],
        verdicts: bytes,
        weights: tuple[float, float, float],
        wishes: list[list[Wish | None]],
        plans: list[list[Plan | None]],
        joints: list[tuple[list[Plan | None], list[int], list[int]]],
        weighed: tuple[bool, bool, int, int, int],
    ) -> None: ...
