"""Atomic writing of files: a failure never leaves half of one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

__all__ = ["atomic_output", "failure_reason", "write_text"]

_REASONS = {
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EEXIST: "it exists already; remove it, choose another name or ask for overwriting",
    errno.EFBIG: "the file would be larger than the system allows; choose another folder",
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.EROFS: "the disk is read-only; choose another folder",
}


def failure_reason(error: OSError) -> str:
    """Why a file could not be written and what to do, without the path, which the caller knows."""
    return _REASONS.get(error.errno or 0, f"{error.strerror or error}; choose another folder")


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir() or (target.exists() and not overwrite):
        code = errno.EISDIR if target.is_dir() else errno.EEXIST
        raise OSError(code, os.strerror(code), str(target))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, replacing an older one. Raises UsageError, with advice, where it cannot."""
    try:
        with atomic_output(path, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {failure_reason(error)}") from error


@contextmanager
def atomic_output(path: str | Path, *, overwrite: bool = False) -> Generator[Path]:
    """Yield the path of a temporary file that becomes `path` when the block ends well.

    The block writes the yielded file, which is next to `path` (the same disk, so that the rename is atomic), exists and
    is empty, and has the suffix of `path` for writers that look at it. At the end it is flushed to disk and renamed:
    `path` has either its old content or all of the new one. After any exception, Ctrl-C included, the temporary file is
    gone and `path` untouched. A link is followed: the link stays, what it points at is replaced. Raises OSError as the
    system does (EEXIST without `overwrite`); `failure_reason` turns it into advice.
    """
    target = Path(os.path.realpath(path))
    _check_target(target, overwrite)
    temporary = target.with_name(f".pocketprior-{secrets.token_hex(6)}{target.suffix}")
    try:
        open(temporary, "xb").close()  # honours the umask, which tempfile does not
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _check_target(target, overwrite)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
