"""Atomic writing: the target has its old content or all of the new one, whatever happens."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pocketprior.core.files import atomic_output, failure_reason

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    with atomic_output(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert temporary.exists()
        assert not target.exists()
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")

    def write_half() -> None:
        with atomic_output(target, overwrite=True) as temporary:
            temporary.write_text("half of the n")
            raise failure

    with pytest.raises(type(failure)):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_of_the_system_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="read-only"), atomic_output(tmp_path / "out.json") as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == []


def test_existing_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(FileExistsError), atomic_output(target):
        pytest.fail("the block must not run")
    assert target.read_text() == "old"


def test_file_that_appears_meanwhile_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    with pytest.raises(FileExistsError), atomic_output(target):
        target.write_text("somebody else's")
    assert target.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["out.json"]


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), atomic_output(tmp_path, overwrite=True):
        pytest.fail("the block must not run")


@ON_POSIX
def test_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_output(link, overwrite=True) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@ON_POSIX
def test_permissions_are_those_of_the_old_file_or_the_umask(tmp_path: Path) -> None:
    old, new, plain = tmp_path / "old", tmp_path / "new", tmp_path / "plain"
    old.touch(mode=0o640)
    os.chmod(old, 0o640)
    plain.touch()
    for target in (old, new):
        with atomic_output(target, overwrite=True) as temporary:
            temporary.write_text("x")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r".") as caught, atomic_output(tmp_path / "file" / "out.json"):
        pytest.fail("the block must not run")
    assert "is a file" in failure_reason(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_output(tmp_path / "none" / "out.json"):
        pytest.fail("the block must not run")
    assert "create it" in failure_reason(caught.value)


@ON_POSIX
def test_full_disk(tmp_path: Path) -> None:
    """A real one: the system refuses to let the file grow past a limit."""
    program = f"""
import resource
from pocketprior.core.files import atomic_output, failure_reason
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with atomic_output({str(tmp_path / "out.bin")!r}) as temporary:
        temporary.write_bytes(bytes(1_000_000))
except OSError as error:
    print(failure_reason(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "choose another folder" in done.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EEXIST, "exists already"),
        (errno.EIO, "choose another folder"),
    ],
)
def test_reasons_say_what_to_do(code: int, advice: str) -> None:
    assert advice in failure_reason(OSError(code, os.strerror(code)))
