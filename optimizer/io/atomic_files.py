"""Files that appear whole or not at all: a temporary file beside the target, fsync, rename, fsync of the folder.

A rename inside one folder is atomic, so a reader sees the old file or the new one, at whatever moment the writer is
killed. What a killed writer leaves are temporary files; the next one in the same folder removes them: a writer
holds a lock on its file, so a file that is old and not locked has no writer any more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from optimizer.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX, SUFFIX = ".onnxhone-", ".tmp"
ABANDONED_AFTER = 60.0  # seconds; a younger file may be one whose writer has not locked it yet


@dataclass
class Draft:
    """A file that is being written under a temporary name."""

    path: Path
    file: IO[bytes]

    def publish(self, target: Path) -> None:
        """Make the draft appear as ``target``, in the same folder, in place of what was there."""
        # 1. the data on the disk, 2. the new name in place of the old file, 3. the name on the disk
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(target)
        sync_folder(target.parent)


@contextlib.contextmanager
def draft(target: Path) -> Iterator[Draft]:
    """A draft in the folder of ``target``, with its permissions if it exists; gone at the end unless published.

    Raises:
        ModelError: If it cannot be written, with the system's reason.
    """
    path = target.with_name(f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    with _explained(target):
        _remove_abandoned(target.parent)
        try:
            with path.open("xb", buffering=1 << 20) as file:
                # Held until the file is closed, so that no other writer takes it for abandoned
                _lock(file.fileno(), block=False)
                with contextlib.suppress(FileNotFoundError):
                    path.chmod(stat.S_IMODE(target.stat().st_mode))
                yield Draft(path, file)
        finally:
            path.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a small file, whole or not at all.

    Raises:
        ModelError: If it cannot be written there.
    """
    target = replaceable(path)
    with draft(target) as written:
        written.file.write(content)
        written.publish(target)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Let only one writer at a time publish in ``folder``, where the file system can lock folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, block=True)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot; the rename is atomic all the same
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replaceable(path: str | os.PathLike[str]) -> Path:
    """The file that writing to ``path`` replaces; a symbolic link is followed within its folder.

    Raises:
        ModelError: If no file can be written to ``path``: a folder, a device, in a missing folder, write-protected,
            or a link into another folder, where external data would not stand beside it.
    """
    target = Path(path)
    with _explained(target):
        if not target.parent.is_dir():
            raise ModelError(f"{target}: there is no folder {target.parent}; create it first")
        if target.is_symlink():
            real = target.resolve()
            if real.parent != target.parent.resolve():
                raise ModelError(f"{target}: is a link to {real} in another folder; name that file itself")
            target = real
        if target.is_dir():
            raise ModelError(f"{target}: is a folder; name a file in it")
        if target.exists() and not target.is_file():
            raise ModelError(f"{target}: is no regular file; name another one")
        if target.exists() and not os.access(target, os.W_OK):
            raise ModelError(f"{target}: is write-protected; change its permissions or name another file")
    return target


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelError(f"{target}: cannot be written ({reason}); free space, or choose another place") from error


def _lock(descriptor: int, *, block: bool) -> bool:
    """Lock a file or folder against other processes; whether that worked (not everywhere can things be locked)."""
    try:
        import fcntl  # noqa: PLC0415 - exists on POSIX only
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of writers that were killed: old ones that no process locks."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < ABANDONED_AFTER:
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _lock(descriptor, block=False):
                    path.unlink()
            finally:
                os.close(descriptor)
