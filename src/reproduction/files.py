"""Files that are there whole or not at all: written beside their place, synchronized, renamed; locks; refusals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import IO, Any, TypeVar

from reproduction.errors import ConfigError, UserError

_Content = TypeVar("_Content", dict[str, Any], list[Any])

# A file that is renamed into its place needs no lock to be read; HDF5 takes one unless told otherwise, also where a
# file system has none. It asks once, when it is loaded.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without file locks answers: NFS without its lock daemon, Lustre mounted without ``-o flock``."""


class FileError(UserError, OSError):
    """A file cannot be written or read."""


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file so that readers, and a run killed at any moment, see the old content or the new.

    Raises:
        FileError: if the folder cannot be written or the disk is full; nothing half-written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(explain(error, path)) from None
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be written holds no temporary file either
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Rename a file, also to another disk: it is copied there first, so that the target is whole or not there.

    Raises:
        OSError: if the target cannot be written.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        source.unlink()


def lock(file: IO[Any], path: Path) -> bool:
    """Take the lock of an open file until it is closed; return False where another process has it.

    Raises:
        FileError: if the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise FileError(explain(error, path)) from None
    return True


def check_readable(path: Path) -> None:
    """Check that the disk lets a file be read whole, before its content is called damaged.

    Raises:
        FileError: with the disk's reason.
    """
    try:
        with open(path, "rb") as file:
            while file.read(2**24):
                pass
            if os.environ["HDF5_USE_FILE_LOCKING"] != "FALSE":
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as HDF5 does
    except BlockingIOError:
        raise FileError(f"{path} is locked by another process; wait for it") from None
    except OSError as error:
        raise FileError(explain(error, path, "read")) from None


def prepare_folder(path: Path) -> None:
    """Make the folder of a file that will be written after a long computation.

    Raises:
        FileError: if it cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise FileError(explain(error, path)) from None


def explain(error: OSError, path: Path, done: str = "written") -> str:
    """Return one sentence for what the disk refused: what is wrong, where, and what to do.

    Args:
        error: the refusal; where it names another file than this one, that is the one that is at fault.
        path: the file that was to be written, or read.
        done: "written" or "read".
    """
    if error.errno in NO_LOCKS:
        return (
            f"{path} lies on a file system without file locks ({os.strerror(error.errno)}), by which two runs keep out "
            "of each other's way; move the project to another disk, or have this one mounted with locks"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} could not be written; free some space and run the same command again"
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    where = "" if named in (path, path.with_name(f".{path.name}.tmp")) else f": {named}"
    why = f"({error.strerror or error}{where})"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        what = f"make {'its folder writable' if done == 'written' else 'it readable'}" if not where else "allow that"
        return f"{path} cannot be {done} {why}; {what}"
    return f"{path} cannot be {done} {why}"


def read_yaml(path: Path, kind: type[_Content]) -> _Content:
    """Return the content of a YAML file: a mapping or a list, an empty one where it holds nothing.

    Raises:
        ConfigError: if it is missing, not valid, or holds something else.
    """
    import yaml

    class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Refuses a key that stands twice. In C: claims are long, and read by every process of a run."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            for twin in (key for key, count in Counter(key.value for key, _ in node.value).items() if count > 1):
                raise yaml.constructor.ConstructorError(None, None, f"{twin!r} stands there twice", node.start_mark)
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=Strict)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run in the project's folder") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content or kind(), kind):
        wanted = "mapping" if kind is dict else kind.__name__
        raise ConfigError(f"{path} should hold a {wanted}, not {type(content).__name__}")
    return content or kind()
