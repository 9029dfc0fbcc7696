"""The page about adding a device family, followed to the letter in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-device.md"
COPIED = ("hami", "deploy", "tests", "pyproject.toml")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "interpose", "native")


def steps(text: str) -> list[tuple[str, str, str]]:
    """The page's blocks in order: the file they are about (the last one named on a line of its own), kind and text."""
    found, path = [], ""
    for named, kind, block in re.findall(r"^`([^`\n]+)`$|^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        path = named or path
        if kind:
            found.append((path, kind, block))
    return found


def change(file: Path, block: str) -> None:
    """Make a change that is written as lines with ` `, `-` or `+` before them; the old lines must be there once."""
    lines = block.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name}: {text.count(old)} places read\n{old}"
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The tree after the walk, and the commands that the page gives."""
    tree, commands = tmp_path_factory.mktemp("walk"), []
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(ROOT / name, tree / name)
    for path, kind, block in steps(PAGE.read_text()):
        match kind:
            case "diff":
                change(tree / path, block)
            case "sh":
                commands += block.splitlines()
            case _:
                assert not (tree / path).exists(), f"{path} is there already"
                (tree / path).write_text(block)
    return tree, commands


def run(tree: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_commands_pass(followed: tuple[Path, list[str]]) -> None:
    tree, commands = followed
    assert len(commands) == 1
    program, *words = commands[0].split()
    assert program == "python"
    told = run(tree, *words, "-rs", "-p", "no:cacheprovider")
    print(told)
    assert re.search(r"[1-9]\d* passed", told)
    assert "failed" not in told


def test_the_family_is_served(followed: tuple[Path, list[str]]) -> None:
    tree, _ = followed
    told = run(tree, "-c", "from hami.vendors import registry; print([vendor.name for vendor in registry()])")
    assert "'Acme'" in told


def test_its_files_are_in_the_projects_style(followed: tuple[Path, list[str]]) -> None:
    tree, _ = followed
    files = [path for path, kind, _ in steps(PAGE.read_text()) if kind == "python"]
    run(tree, "-m", "ruff", "format", "--check", *files)
    run(tree, "-m", "ruff", "check", *files)
