"""A file that a job relies on is on the disk before anybody is told of it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from contracts.artifacts import replace_file
from tests.disk import Disk


def test_a_file_outlives_a_power_cut_with_the_folders_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk.watched(monkeypatch)
    for path in ("gen/images/0.png", "gen/images/1.png", "gen/trace.jsonl", "other"):
        replace_file(tmp_path / path, b"content")
        assert disk.has(tmp_path, path)
    assert sorted(path.name for path in (tmp_path / "gen" / "images").iterdir()) == ["0.png", "1.png"]


def test_one_that_takes_the_place_of_another_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")
    disk = Disk.watched(monkeypatch)
    replace_file(tmp_path / "file", b"new")
    assert disk.has(tmp_path, "file")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_syncs_no_folders_is_done_without_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EINVAL:
        replace_file(tmp_path / "gen" / "file", b"content")
    else:
        with pytest.raises(OSError, match="Input/output error"):
            replace_file(tmp_path / "gen" / "file", b"content")
    assert (tmp_path / "gen" / "file").read_bytes() == b"content"


def test_a_folder_that_is_removed_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def removing(part: Path, path: Path) -> None:
        replace(part, path)
        path.unlink()
        path.parent.rmdir()

    monkeypatch.setattr(Path, "replace", removing)
    replace_file(tmp_path / "gen" / "file", b"content")
    assert not (tmp_path / "gen").exists()
