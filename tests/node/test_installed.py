"""The installed library: new files and renames, never a write into a file that programs have mapped."""

from pathlib import Path

import pytest

from hami.node.installed import InstallError, hook_tree, install

ONE, TWO = b"\x7fELF one", b"\x7fELF two"


def library(folder: Path, data: bytes) -> Path:
    path = folder / "built.so"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ("/usr/local", "/usr/local/vgpu"),
        ("/usr/local/vgpu", "/usr/local/vgpu"),
        ("/usr/local/vgpu/", "/usr/local/vgpu"),
    ],
)
def test_the_hook_path_with_and_without_its_last_part(written: str, want: str) -> None:
    assert str(hook_tree(written).vgpu) == want


def test_a_relative_hook_path() -> None:
    with pytest.raises(ValueError, match="absolute"):
        hook_tree("vgpu")


def test_installing_twice_changes_nothing(tmp_path: Path) -> None:
    tree = hook_tree(str(tmp_path))
    versioned = install(library(tmp_path, ONE), tree, "1.0")
    assert versioned.name.startswith("libvgpu.so.1.0-")
    assert versioned.read_bytes() == tree.library.read_bytes() == ONE
    assert tree.preload.read_text() == f"{tree.library}\n"
    before = {path: path.stat().st_ino for path in tree.vgpu.iterdir()}
    assert install(library(tmp_path, ONE), tree, "1.0") == versioned
    assert {path: path.stat().st_ino for path in tree.vgpu.iterdir()} == before


def test_a_mapped_file_keeps_its_content(tmp_path: Path) -> None:
    tree = hook_tree(str(tmp_path))
    old = install(library(tmp_path, ONE), tree, "1.0")
    with tree.library.open("rb") as mapped:
        new = install(library(tmp_path, TWO), tree, "1.1")
        assert mapped.read() == ONE
    assert tree.library.read_bytes() == new.read_bytes() == TWO
    assert old.read_bytes() == ONE


def test_only_a_few_old_versions_stay(tmp_path: Path) -> None:
    tree = hook_tree(str(tmp_path))
    for i in range(6):
        newest = install(library(tmp_path, ONE + bytes([i])), tree, f"1.{i}")
    kept = [path for path in tree.vgpu.iterdir() if path.name.startswith("libvgpu.so.")]
    assert len(kept) == 3
    assert newest in kept


def test_what_cannot_be_installed(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="not a shared library"):
        install(library(tmp_path, b"#!/bin/sh"), hook_tree(str(tmp_path)), "1")
    with pytest.raises(InstallError, match="cannot read"):
        install(tmp_path / "absent", hook_tree(str(tmp_path)), "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="choose another hook path"):
        install(library(tmp_path, ONE), hook_tree(str(tmp_path / "file")), "1")
