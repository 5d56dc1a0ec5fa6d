"""Files that are there whole or not at all: written beside their place, synchronized, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from reproduction.errors import ConfigError, UserError

_Content = TypeVar("_Content", dict[str, Any], list[Any])


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


def explain(error: OSError, path: Path) -> str:
    """Return one sentence for a failed write: what is wrong, where, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} could not be written; free some space and run the same command again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{path} cannot be written ({os.strerror(error.errno)}); make its folder writable"
    return f"{path} cannot be written ({error.strerror or error})"


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
        content = yaml.load(path.read_text(), Loader=Strict)
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
