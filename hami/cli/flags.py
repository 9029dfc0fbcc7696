"""Flags in Go's spelling, rewritten to the one the command-line library takes.

Deployments pass what HAMi's programs accept: `-v=4`, `--leader-elect=true`, bare `--debug`, `-mig-strategy=none`,
dashes and underscores mixed. A table names each service's flags; everything else (our own flags, positional arguments)
passes unchanged, and so does a value that is not what its flag takes: the library refuses it and names the flag.

What comes out: `--name` or `--no-name` for a switch, `--name=value` for a value, `-v N` for the log level.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag by its name without dashes, spelled as the service declares it."""

    name: str
    """A trailing `*` stands for any ending."""
    switch: bool = False
    """It is true or false, and true when it stands alone."""
    ignored: bool = False
    """Accepted and dropped."""
    reason: str = ""
    """Why an ignored flag has no effect, told once on standard error; empty = not worth a line."""


def _values(*names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name) for name in names)


def _switches(*names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name, switch=True) for name in names)


_LOG: Final = (
    Flag("v"),
    *(Flag(name, ignored=True) for name in ("vmodule", "stderrthreshold", "log_backtrace_at", "log_dir", "log_file")),
    Flag("log_file_max_size", ignored=True),
    *(
        Flag(name, switch=True, ignored=True)
        for name in (
            "logtostderr",
            "alsologtostderr",
            "add_dir_header",
            "skip_headers",
            "skip_log_headers",
            "one_output",
        )
    ),
)
"""The reference's logging library. Only the level means something here."""

_IN_FILE: Final = "the device configuration file says it"

_SCHEDULER: Final = (
    *_values(
        "http_bind",
        "cert_file",
        "key_file",
        "scheduler-name",
        "node-scheduler-policy",
        "gpu-scheduler-policy",
        "metrics-bind-address",
        "node-label-selector",
        "kube-qps",
        "kube-burst",
        "kube-timeout",
        "node-lock-timeout",
        "node-lock-retry-timeout",
        "leader-elect-resource-name",
        "leader-elect-resource-namespace",
        "device-config-file",
    ),
    *_switches("profiling", "force-overwrite-default-scheduler", "leader-elect", "legacy-metrics", "debug"),
    *_switches("enable-ascend", "enable-iluvatar"),
    *(Flag(name, ignored=True, reason=_IN_FILE) for name in ("default-mem", "default-cores", "default-gpu")),
    *(
        Flag(name, ignored=True, reason=_IN_FILE)
        for name in ("cambricon-mlu-*", "dcu-*", "mthreads-*", "enflame-*", "metax-*", "kunlun-*")
    ),
    Flag("sgpu-topology-aware", switch=True, ignored=True, reason=_IN_FILE),
    *_LOG,
)

_AGENT: Final = (
    *_values(
        "node-name",
        "config-file",
        "mig-strategy",
        "device-split-count",
        "device-memory-scaling",
        "device-cores-scaling",
        "resource-name",
        "metrics-bind-address",
    ),
    *_switches("disable-core-limit", "legacy-metrics", "driver-cap", "host-pid-broker", "amd"),
    *_LOG,
)

FLAGS: Final[Mapping[str, tuple[Flag, ...]]] = {"scheduler": _SCHEDULER, "agent": _AGENT}
"""By sub-command."""

_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """An argument list for the command-line library, and what was left out of it with a reason worth telling."""

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()


def normalise(arguments: Sequence[str]) -> list[str]:
    """The arguments of `hami SUB-COMMAND ...` as the command-line library takes them; notes go to standard error."""
    if not arguments or arguments[0] not in FLAGS:
        return list(arguments)
    rewritten = rewrite(FLAGS[arguments[0]], arguments[1:])
    for note in rewritten.notes:
        print(note, file=sys.stderr)
    return [arguments[0], *rewritten.arguments]


def rewrite(flags: Sequence[Flag], arguments: Sequence[str]) -> Rewritten:
    """`arguments` with the flags of the table rewritten; what follows a bare `--` stays as it is."""
    out: list[str] = []
    notes: dict[str, None] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            out += [argument, *rest]
            break
        name, equals, value = _split(argument)
        flag = _find(flags, name)
        if flag is None:
            out.append(argument)
            continue
        written = _switch(flag, equals, value) if flag.switch else _value(flag, equals, value, rest)
        if not flag.ignored:
            out += written or [argument]
        elif flag.reason:
            notes[f"--{name} has no effect: {flag.reason}"] = None
    return Rewritten(arguments=tuple(out), notes=tuple(notes))


def _split(argument: str) -> tuple[str, str, str]:
    """Name, `=` or nothing, value; the name is empty for what is no flag."""
    if not argument.startswith("-"):
        return "", "", ""
    name, equals, value = argument.lstrip("-").partition("=")
    # `-v4`: only the log level is ever written without a separator.
    if not equals and not argument.startswith("--") and name[:1] == "v" and name[1:].isdigit():
        return "v", "=", name[1:]
    return name, equals, value


def _find(flags: Sequence[Flag], name: str) -> Flag | None:
    wanted = name.replace("_", "-")
    for flag in flags:
        known = flag.name.replace("_", "-")
        if wanted == known or (known.endswith("*") and wanted.startswith(known[:-1])):
            return flag
    return None


def _switch(flag: Flag, equals: str, value: str) -> list[str]:
    """A switch without its value, or nothing when the value is neither true nor false."""
    if not equals or value in _TRUE:
        return [f"--{flag.name}"]
    return [f"--no-{flag.name}"] if value in _FALSE else []


def _value(flag: Flag, equals: str, value: str, rest: Iterator[str]) -> list[str]:
    """A flag with its value, taken from the next argument where none is attached; nothing when there is none."""
    if not equals:
        following = next(rest, None)
        if following is None:
            return []
        value = following
    return ["-v", value] if flag.name == "v" else [f"--{flag.name}={value}"]
