"""The walk-through of docs/simulate.md: its files, its command and its output."""

import re
import shlex
from pathlib import Path

import pytest

from hami.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def without_seconds(text: str) -> list[str]:
    return [re.sub(r" +\d+\.\d$", "", line.rstrip()) for line in text.strip().splitlines()]


def test_the_first_run_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (_, nodes), (_, pods), (_, session) = BLOCKS[:3]
    Path("nodes.yaml").write_text(nodes)
    Path("pods.yaml").write_text(pods)
    command, _, shown = session.partition("\n")
    program, *words = shlex.split(command.removeprefix("$ "))
    assert program == "hami"
    with pytest.raises(SystemExit):
        run(words)
    assert without_seconds(capsys.readouterr().out) == without_seconds(shown)


def test_every_flag_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["simulate", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    section = PAGE[PAGE.index("\n## Flags") : PAGE.index("\n## Files")]
    told = {
        flag
        for row in section.splitlines()
        if row.startswith("| `--")
        for flag in re.findall(r"`(--[a-z-]+)", row.split("|")[1])
    }
    assert flags == told


@pytest.mark.parametrize("line", re.findall(r"^    hami simulate: (.*)$", PAGE, re.MULTILINE))
def test_messages_are_those_the_program_prints(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nodes.yaml").write_text(BLOCKS[0][1])
    Path("bad.csv").write_text("cpu_milli,memory_mib,num_gpu,gpu_milli\n1,1,1,500\n1,1,1,half\n")
    container = "{name: c, resources: {requests: {cpu: '-1'}}}"
    Path("pods.yaml").write_text(f"kind: Service\n---\nkind: Pod\nspec: {{containers: [{container}]}}\n")
    with pytest.raises(SystemExit) as ended:
        run(["simulate", "--nodes", "nodes.yaml", "--pods", line.partition(":")[0]])
    assert ended.value.code == 65
    assert capsys.readouterr().err == f"hami simulate: {line}\n"
