"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convexadam._atomic import atomic_path, check_writable
from convexadam.errors import FileError


def test_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_a_failure(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_writer_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write .*a\.txt"), atomic_path(tmp_path / "a.txt"):
        pass


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="permissions of a file are those of its folder")
@pytest.mark.parametrize("mode", [0o640, 0o600])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "private.txt"
    target.write_text("old")
    target.chmod(mode)
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert [(tmp_path / name).read_text() for name in ("link", "kept")] == ["new", "old"]


@pytest.mark.parametrize("letter", ["a", "\u00e4", "\u8108"])  # of one, two and three bytes
@pytest.mark.parametrize("spare", [0, 5, 18])
def test_names_as_long_as_the_system_allows(tmp_path: Path, letter: str, spare: int) -> None:
    name = letter * ((248 - spare) // len(letter.encode())) + ".nii.gz"
    check_writable(tmp_path / name)
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError), atomic_path(tmp_path / ("a" * 256)) as temporary:
        temporary.write_text("whole")
    assert not list(tmp_path.iterdir())
