"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
import time

import pytest

from optimizer.errors import ModelError
from optimizer.io import atomic_files


def test_writes_and_leaves_nothing_else(tmp_path):
    atomic_files.write_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert tmp_path.joinpath("a").read_bytes() == b"new"


def test_permissions_of_the_replaced_file_are_kept(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    atomic_files.write_bytes(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_file_gets_the_usual_permissions(tmp_path):
    tmp_path.joinpath("usual").touch()
    atomic_files.write_bytes(tmp_path / "a", b"new")
    assert tmp_path.joinpath("a").stat().st_mode == tmp_path.joinpath("usual").stat().st_mode


def test_readers_of_the_old_file_keep_it(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        atomic_files.write_bytes(path, b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_changes_when_writing_fails(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write():
        with atomic_files.draft(path) as draft:
            draft.file.write(b"half of the")
            raise error

    with pytest.raises(error):
        write()
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_explained(tmp_path):
    def write():
        with atomic_files.draft(tmp_path / "a"):
            raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"a: cannot be written \(no space left on device\); free space"):
        write()


def test_link_within_the_folder_is_followed(tmp_path):
    tmp_path.joinpath("v1").write_bytes(b"old")
    tmp_path.joinpath("latest").symlink_to("v1")
    atomic_files.write_bytes(tmp_path / "latest", b"new")
    assert tmp_path.joinpath("latest").is_symlink()
    assert tmp_path.joinpath("v1").read_bytes() == b"new"


def places(folder):
    folder.joinpath("folder").mkdir()
    folder.joinpath("folder/far").write_bytes(b"")
    folder.joinpath("far").symlink_to("folder/far")
    os.mkfifo(folder / "pipe")
    return [
        (folder / "folder", "is a folder"),
        (folder / "missing/a", "there is no folder"),
        (folder / "far", "in another folder; name that file itself"),
        (folder / "pipe", "is no regular file"),
        (folder / "folder/far/a", "there is no folder"),
        ("", "is a folder"),
    ]


def test_places_where_no_file_can_be(tmp_path):
    for path, expected in places(tmp_path):
        with pytest.raises(ModelError, match=expected):
            atomic_files.write_bytes(path, b"new")


def test_write_protected_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ModelError, match="is write-protected"):
        atomic_files.write_bytes(path, b"new")


def test_name_that_is_too_long(tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        atomic_files.write_bytes(tmp_path / ("n" * 300), b"new")


def test_drafts_of_killed_writers_are_removed_later(tmp_path):
    abandoned = tmp_path / f"{atomic_files.PREFIX}0{atomic_files.SUFFIX}"
    young = tmp_path / f"{atomic_files.PREFIX}1{atomic_files.SUFFIX}"
    abandoned.touch()
    young.touch()
    long_ago = time.time() - 2 * atomic_files.ABANDONED_AFTER
    os.utime(abandoned, (long_ago, long_ago))
    with atomic_files.draft(tmp_path / "a") as working:
        os.utime(working.path, (long_ago, long_ago))  # old, but its writer still holds the lock
        atomic_files.write_bytes(tmp_path / "b", b"new")
        assert working.path.exists()
        assert not abandoned.exists()
        assert young.exists()
