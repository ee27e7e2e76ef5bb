"""Move, write and lock files so that nothing is replaced, half written or shared by two runs."""

import errno
import os
import time
from contextlib import contextmanager, suppress

if os.name == "nt":
    import msvcrt
else:
    import fcntl

LOCK = ".get_photos_lock"  # a file in the folder; needed on Windows only


class FolderLock:
    """A lock on a folder, which the system releases when its holder ends, in whatever way.

    Where there is none, as on some network disks, work is done without.
    """

    def __init__(self, folder):
        self.folder, self.handle = folder, None

    def take(self):
        """Return whether no other program has the lock; it is held from now on, then."""
        if self.handle is not None:
            return True
        try:
            if os.name == "nt":
                self.handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT)
                msvcrt.locking(self.handle, msvcrt.LK_NBLCK, 1)
            else:
                self.handle = os.open(self.folder, os.O_RDONLY)
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            held = problem.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
            if held and self.handle is not None:
                os.close(self.handle)
                self.handle = None
                return False
        return True

    def release(self):
        """Let others take the lock."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None
            with suppress(OSError):  # Windows keeps what others have open
                os.unlink(self.folder / LOCK)


@contextmanager
def one_run_at_a_time(folder):
    """Hold the lock on a folder; wait for it, and say so, while another run has it."""
    lock, told = FolderLock(folder), False
    try:
        while not lock.take():
            if not told:
                print(f"Another run is at work in {folder}. Waiting for it to end ...", flush=True)
            told = True
            time.sleep(0.1)
        yield
    finally:
        lock.release()


def move_new(here, there):
    """Move a file or folder to where nothing is; raise FileExistsError where something is.

    What appears at the last moment is safe as well, but for a file on a Unix disk without hard
    links, such as a memory stick: there it must not appear between the look and the move.
    """
    if os.name != "nt" and not here.is_dir():
        try:
            os.link(here, there)
            return os.unlink(here)
        except OSError:  # no hard links there, or something is there
            pass
    if os.path.lexists(there):
        if os.name != "nt" and there.exists() and os.path.samefile(here, there):
            return os.unlink(here)  # a run was stopped between the two steps
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(there))
    os.rename(here, there)  # of a folder, or on Windows, this replaces nothing


def write_aside(path, write):
    """Let `write` fill a file beside `path`, then rename it: `path` is whole at every moment.

    Args:
        path: `pathlib.Path` of the file to make or replace.
        write: called with the path to write to.

    Raises:
        OSError, or what `write` raises: when the disk is full or the folder cannot be written;
            `path` stays as it was.
    """
    aside = path.with_name(f"writing-{path.name}")
    try:
        write(aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:  # the stop button as well
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
