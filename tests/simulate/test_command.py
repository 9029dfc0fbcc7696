"""`hami simulate` as a person calls it: exit codes, messages, tables and JSON."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hami import __version__
from hami.cli.app import run
from tests.simulate.worlds import ALLOCATED, NODES, PODS, node, pod

Call = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """What a call left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def simulate(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `hami simulate` in a folder with `nodes.csv` and `pods.csv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nodes.csv").write_text(NODES + "a,64000,99999,4,G2\nb,64000,99999,4,T4\n")
    rows = "".join(f"p{i},1000,10,1,{(300, 600, 1000)[i % 3]},,{i},{i + 40}\n" for i in range(30))
    (tmp_path / "pods.csv").write_text(PODS + rows)

    def call(*words: str, nodes: str = "nodes.csv", pods: str = "pods.csv") -> Answer:
        with pytest.raises(SystemExit) as ended:
            run(["simulate", "--nodes", nodes, "--pods", pods, *words])
        shown = capsys.readouterr()
        code = ended.value.code
        return Answer(code=code if isinstance(code, int) else 0 if code is None else 1, out=shown.out, err=shown.err)

    return call


def test_tables_name_every_policy_and_say_that_it_is_simulated(simulate: Call) -> None:
    answer = simulate("--policy", "binpack/spread", "--policy", "fragmentation")
    assert answer.code == 0
    assert answer.out.startswith("Simulated: 2 nodes with 8 devices; 30 pods in the order of the list.")
    assert re.search(r"^binpack/spread +30 +\d+ +\d+ +\d+\.\d\d ", answer.out, re.MULTILINE)
    assert re.search(r"^fragmentation +30 ", answer.out, re.MULTILINE)
    assert re.search(r"^G2 +4 ", answer.out, re.MULTILINE)
    assert "not placed (fragmentation)" in answer.out
    assert "too little device memory left" in answer.out


def test_json_is_one_object_and_nothing_else(simulate: Call) -> None:
    found = simulate("--policy", "spread", "--policy", "binpack", "--seed", "1-3", "--load", "1.2", "--json").document
    assert found["simulated"] is True
    assert found["version"] == __version__
    assert [file["path"] for file in found["files"]] == ["nodes.csv", "pods.csv"]
    assert [each["policy"] for each in found["policies"]] == ["spread", "binpack"]
    assert [(each["policy"], each["seed"]) for each in found["runs"]] == [
        (policy, seed) for seed in (1, 2, 3) for policy in ("spread", "binpack")
    ]
    spread = found["policies"][0]["gpu_allocation_percent"]
    figures = [each["gpu_allocation_percent"] for each in found["runs"] if each["policy"] == "spread"]
    assert spread["mean"] == pytest.approx(sum(figures) / 3, abs=1e-3)
    assert [spread["min"], spread["max"]] == [min(figures), max(figures)]
    for each in found["runs"]:
        assert each["pods_placed"] + each["pods_refused"] == each["pods_arrived"]
        assert sum(kind["count"] for kind in each["unplaced"]) == each["pods_refused"]
        assert each["curve"][-1]["allocated"] == each["gpu_allocation_percent"]


def test_the_command_in_the_result_makes_the_result(simulate: Call) -> None:
    words = ["--policy", "spread", "--seed", "4,6", "--load", "0.9", "--more", "2:a", "--json"]
    first = simulate(*words).document
    program, command, *again = shlex.split(first["command"])
    assert (program, command) == ("hami", "simulate")
    second = simulate(*again[again.index("--policy") :], "--json").document
    for found in (first, second):
        for each in found["runs"]:
            del each["seconds"]
    assert first == second
    assert first["nodes"] == 4


def test_times_are_followed(simulate: Call) -> None:
    answer = simulate("--timed")
    assert "mean over time %" in answer.out
    (found,) = simulate("--timed", "--json").document["runs"]
    assert found["gpu_allocation_percent_mean"] > 0
    assert [sample["at"] for sample in found["curve"]] == sorted(sample["at"] for sample in found["curve"])


def test_a_cluster_as_it_is(simulate: Call) -> None:
    Path("nodes.yaml").write_text(yaml.safe_dump_all([node("n", gpus=2), node("m")]))
    broken = pod("never", mem="-1")
    pods = [pod("there", nodeName="n", metadata={"annotations": ALLOCATED}), pod("new", mem=900), broken]
    Path("pods.json").write_text(json.dumps({"kind": "List", "items": pods}))
    answer = simulate("--keep-bound", nodes="nodes.yaml", pods="pods.json")
    assert answer.code == 0
    assert "2 nodes with 3 devices, 1 pod already bound; 1 pod in the order" in answer.out
    assert "never tried: pods.json: items[2]" in answer.out
    found = simulate("--keep-bound", "--json", nodes="nodes.yaml", pods="pods.json").document
    assert found["pods_bound"] == 1
    assert found["runs"][0]["gpu_allocation_percent"] == pytest.approx(100 * (0.3 + 0.9) / 3, abs=1e-3)
    assert len(found["unreadable_pods"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "best"], "--policy: expected one of binpack, fragmentation, spread for nodes, got 'best'"),
        (
            ["--policy", "numa/binpack"],
            "--policy: expected one of binpack, fragmentation, spread for nodes, got 'numa'",
        ),
        (["--policy", "binpack/best"], "--policy: expected words of binpack,"),
        (["--seed", "x"], "--seed: expected whole numbers such as 42, 42-51 or 42,44, got 'x'"),
        (["--seed", "-1"], "--seed: expected whole numbers"),
        (["--seed", "5-3"], "--seed: expected whole numbers"),
        (["--seed", "9" * 5000], "--seed: expected whole numbers"),
        (["--seed", "1-100000"], "--seed: expected at most 1,000 seeds"),
        (["--load", "nan"], "--load: expected a number above 0, at most 1000, got nan"),
        (["--load", "inf"], "--load: expected a number above 0"),
        (["--load", "-1"], "--load: expected a number above 0"),
        (["--load", "0"], "--load: expected a number above 0"),
        (["--timed", "--load", "1"], "--load: expected not to be given with --timed"),
        (["--timed", "--seed", "1"], "--seed: expected not to be given with --timed"),
        (["--timed", "--keep-bound"], "--keep-bound: expected not to be given with --timed"),
        (["--more", "3"], "--more: expected COUNT:NODE"),
        (["--more", "3:zzz"], "--more: expected one of the 2 nodes, as a, got 'zzz'"),
        (["--device-config-file", "pods.csv"], "expected"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(simulate: Call, words: list[str], message: str) -> None:
    answer = simulate(*words)
    assert (answer.code, answer.out) == (65, "")
    assert answer.err.startswith("hami simulate: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 400


def test_a_bad_row_is_one_line_that_names_file_line_and_column(simulate: Call) -> None:
    Path("bad.csv").write_text(PODS + "p,1,1,1,500,,,\nq,1,1,1,five,,,\n")
    answer = simulate(pods="bad.csv")
    assert answer.code == 65
    assert (
        answer.err == "hami simulate: bad.csv:3: column gpu_milli: expected a whole number from 1 to 1000, got 'five'\n"
    )


@pytest.mark.parametrize("wrong", ["nowhere.csv", "."])
def test_a_file_that_cannot_be_read(simulate: Call, wrong: str) -> None:
    answer = simulate(pods=wrong)
    assert answer.code == 66
    assert wrong in answer.err
    assert answer.err.count("\n") == 1


def test_a_page_that_cannot_be_written(simulate: Call) -> None:
    answer = simulate("--html", "nowhere/page.html")
    assert answer.code == 66
    assert "nowhere/page.html" in answer.err


def test_a_policy_is_run_once(simulate: Call) -> None:
    assert len(simulate("--policy", "spread", "--policy", "spread", "--json").document["runs"]) == 1
