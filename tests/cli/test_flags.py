"""Flags in Go's form: every flag that deployments and guides pass, in each spelling."""

from collections.abc import Sequence

import pytest

from hami.cli.flags import FLAGS, Flag, normalise, rewrite

# Flags whose value is used, as charts and guides write them.
SCHEDULER_VALUES = [
    ("http_bind", "0.0.0.0:443"),
    ("cert_file", "/tls/tls.crt"),
    ("key_file", "/tls/tls.key"),
    ("scheduler-name", "hami-scheduler"),
    ("node-scheduler-policy", "spread"),
    ("gpu-scheduler-policy", "topology-aware"),
    ("metrics-bind-address", ":9395"),
    ("node-label-selector", "gpu=on,zone=a"),
    ("kube-qps", "5"),
    ("kube-burst", "10"),
    ("kube-timeout", "-1"),
    ("node-lock-timeout", "5m0s"),
    ("node-lock-retry-timeout", "28s"),
    ("leader-elect-resource-name", "hami-scheduler"),
    ("leader-elect-resource-namespace", "kube-system"),
    ("device-config-file", "/device-config.yaml"),
]
SCHEDULER_SWITCHES = [
    "profiling",
    "force-overwrite-default-scheduler",
    "leader-elect",
    "legacy-metrics",
    "debug",
    "enable-ascend",
    "enable-iluvatar",
]
AGENT_VALUES = [
    ("config-file", "/device-config.yaml"),
    ("mig-strategy", "none"),
    ("node-name", "n1"),
    ("device-split-count", "10"),
    ("device-memory-scaling", "1.5"),
    ("device-cores-scaling", "1"),
    ("resource-name", "nvidia.com/gpu"),
    ("metrics-bind-address", ":9394"),
]
AGENT_SWITCHES = ["disable-core-limit", "legacy-metrics"]

VALUES = [("scheduler", *row) for row in SCHEDULER_VALUES] + [("agent", *row) for row in AGENT_VALUES]
SWITCHES = [("scheduler", name) for name in SCHEDULER_SWITCHES] + [("agent", name) for name in AGENT_SWITCHES]


@pytest.mark.parametrize(("service", "name", "value"), VALUES, ids=[f"{row[0]} {row[1]}" for row in VALUES])
def test_value_in_each_spelling(service: str, name: str, value: str) -> None:
    wanted = [service, f"--{name}={value}"]
    dashed, underscored = name.replace("_", "-"), name.replace("-", "_")
    for arguments in (
        [f"--{name}={value}"],
        [f"--{name}", value],
        [f"-{name}={value}"],
        [f"--{dashed}={value}"],
        [f"--{underscored}", value],
    ):
        assert normalise([service, *arguments]) == wanted
    assert normalise([service, f"--{name}="]) == [service, f"--{name}="]
    assert normalise([service, f"--{name}"]) == [service, f"--{name}"]


@pytest.mark.parametrize(("service", "name"), SWITCHES, ids=[" ".join(row) for row in SWITCHES])
def test_switch_in_each_spelling(service: str, name: str) -> None:
    for argument in (
        f"--{name}",
        f"-{name}",
        *(f"--{name}={word}" for word in ("true", "True", "TRUE", "t", "T", "1")),
    ):
        assert normalise([service, argument]) == [service, f"--{name}"]
    for argument in (f"-{name}=false", *(f"--{name}={word}" for word in ("false", "False", "FALSE", "f", "F", "0"))):
        assert normalise([service, argument]) == [service, f"--no-{name}"]
    # Neither true nor false: left for the command-line library to refuse.
    assert normalise([service, f"--{name}=maybe"]) == [service, f"--{name}=maybe"]


@pytest.mark.parametrize("service", ["scheduler", "agent"])
@pytest.mark.parametrize(
    "arguments", [["-v=4"], ["-v", "4"], ["-v4"], ["--v=4"], ["--v", "4"]], ids=lambda arguments: " ".join(arguments)
)
def test_log_level(service: str, arguments: Sequence[str]) -> None:
    assert normalise([service, *arguments]) == [service, "-v", "4"]


@pytest.mark.parametrize("service", ["scheduler", "agent"])
@pytest.mark.parametrize(
    "argument",
    [
        "--vmodule=server=4",
        "--logtostderr",
        "--logtostderr=true",
        "-logtostderr=false",
        "--alsologtostderr",
        "--stderrthreshold=2",
        "--log_dir=/tmp",
        "--log-dir=/tmp",
        "--log_file=x",
        "--log_file_max_size=1",
        "--log_backtrace_at=a.go:1",
        "--add_dir_header",
        "--skip_headers",
        "--skip_log_headers=true",
        "--one_output",
    ],
)
def test_log_flags_without_meaning_here_are_dropped(
    service: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert normalise([service, argument, "--debug-of-our-own"]) == [service, "--debug-of-our-own"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name",
    [
        "default-mem",
        "default-cores",
        "default-gpu",
        "cambricon-mlu-name",
        "cambricon-mlu-memory",
        "cambricon-mlu-cores",
        "dcu-name",
        "dcu-memory",
        "dcu-cores",
        "mthreads-name",
        "enflame-name",
        "metax-name",
        "kunlun-name",
    ],
)
def test_superseded_flags_are_dropped_and_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert normalise(["scheduler", f"--{name}=1", f"--{name}", "1", "--debug"]) == ["scheduler", "--debug"]
    assert capsys.readouterr().err == f"--{name} has no effect: the device configuration file says it\n"


def test_superseded_switch() -> None:
    assert normalise(["scheduler", "--sgpu-topology-aware", "--debug"]) == ["scheduler", "--debug"]


CHART_LISTS = [
    (
        "scheduler --http_bind=0.0.0.0:443 --cert_file=/tls/tls.crt --key_file=/tls/tls.key --scheduler-name=h "
        "--metrics-bind-address=:9395 --node-scheduler-policy=binpack --gpu-scheduler-policy=spread "
        "--force-overwrite-default-scheduler=true --device-config-file=/device-config.yaml --leader-elect=true "
        "--leader-elect-resource-name=h --leader-elect-resource-namespace=ns --enable-ascend=false --debug -v=4",
        "scheduler --http_bind=0.0.0.0:443 --cert_file=/tls/tls.crt --key_file=/tls/tls.key --scheduler-name=h "
        "--metrics-bind-address=:9395 --node-scheduler-policy=binpack --gpu-scheduler-policy=spread "
        "--force-overwrite-default-scheduler --device-config-file=/device-config.yaml --leader-elect "
        "--leader-elect-resource-name=h --leader-elect-resource-namespace=ns --no-enable-ascend --debug -v 4",
    ),
    (
        "agent --role plugin --config-file=/device-config.yaml --mig-strategy=none --disable-core-limit=false -v=4",
        "agent --role plugin --config-file=/device-config.yaml --mig-strategy=none --no-disable-core-limit -v 4",
    ),
]


@pytest.mark.parametrize(("written", "taken"), CHART_LISTS, ids=["scheduler", "agent"])
def test_the_chart_s_argument_lists(written: str, taken: str) -> None:
    assert normalise(written.split()) == taken.split()


def test_everything_else_passes_unchanged() -> None:
    ours = [
        "scheduler",
        "--kubeconfig",
        "-",
        "--extender_bind=x:1",
        "word",
        "-",
        "-x",
        "--help",
        "",
        "--",
        "--debug=true",
    ]
    assert normalise(ours) == ours
    assert normalise(["run", "--", "prog", "-v=4"]) == ["run", "--", "prog", "-v=4"]
    assert normalise([]) == []


def test_a_flag_s_value_is_never_taken_for_a_flag() -> None:
    assert rewrite([Flag("a"), Flag("b", switch=True)], ["--a", "--b=true"]).arguments == ("--a=--b=true",)


@pytest.mark.parametrize("service", sorted(FLAGS))
def test_no_flag_stands_twice(service: str) -> None:
    names = [flag.name.replace("_", "-") for flag in FLAGS[service]]
    assert len(names) == len(set(names))
