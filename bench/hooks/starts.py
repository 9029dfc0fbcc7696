"""What starting a program costs more: wall and CPU time of spawning and waiting."""

from collections.abc import Iterator
from typing import Final

from bench.hooks.programs import Programs, Row, compare

SPAWNS: Final = 40
AT_ONCE: Final = 8
ROUNDS: Final = 15


def rows(programs: Programs, *, suites: int) -> Iterator[Row]:
    """Programs that never touch a device, those that do, and several at once.

    One alone is measured in CPU time, as calls are; several at once share processors, so their wall time counts.
    """
    client = (str(programs.client), "init", "0")
    for item, program, target_us in (("/bin/true", ("/bin/true",), 80.0), ("cuInit client", client, 150.0)):
        native, hooked = _spawn(programs, program, 1, SPAWNS * suites)
        yield compare(f"start of {item}, CPU", [cpu for _, cpu in native], [cpu for _, cpu in hooked], target_us, "us")
    native, hooked = _spawn(programs, client, AT_ONCE, ROUNDS * suites)
    yield compare(
        f"{AT_ONCE} cuInit clients at once, until the last ends",
        [wall / 1000 for wall, _ in native],
        [wall / 1000 for wall, _ in hooked],
        3.0,
        "ms",
    )


Times = list[tuple[float, float]]


def _spawn(programs: Programs, program: tuple[str, ...], width: int, times: int) -> tuple[Times, Times]:
    """Microseconds of wall and CPU time, without and with the library, in turn five at a time."""
    native: Times = []
    hooked: Times = []
    plain = programs.environment(hooked=False)
    limited = programs.environment(hooked=True, preload=False)
    for _ in range(max(1, times // 5)):
        for into, environment, library in ((native, plain, ""), (hooked, limited, str(programs.library))):
            out = programs.run(environment, "spawn", 5, width, library, *program)
            into += [(float(wall), float(cpu)) for wall, cpu in (line.split() for line in out.splitlines())]
    return native, hooked
