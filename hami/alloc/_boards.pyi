"""What Python sees of the memory of choices; `table.py` gives it the function to ask."""

from collections.abc import Callable

class Boards:
    choose_by: Callable[[int, int, tuple[int, ...], int, int], tuple[tuple[int, ...], float] | None] | None
    def forget(self) -> None: ...
    def tell_failure(self) -> None: ...
