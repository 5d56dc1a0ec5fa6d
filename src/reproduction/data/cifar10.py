"""CIFAR-10: from the official archive, or one of the same layout, to one netCDF file.

The archive holds pickles. Nothing in it is opened before its checksum is verified, nothing is unpacked to disk, and the
unpickler knows arrays of integers and plain containers only.
"""

from __future__ import annotations

import gzip
import io
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reproduction.data.download import DataError, download, leaving_nothing
from reproduction.files import FileError, check_readable, write_atomically

if TYPE_CHECKING:
    from reproduction.data.images import Images

FOLDER = "cifar-10-batches-py"
TRAIN_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST_BATCHES = ("test_batch",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
"""Channels, rows and columns of a picture."""

ARCHIVE_NAME = "cifar-10-python.tar.gz"
MAX_ARCHIVE_BYTES = 512 * 2**20
"""Refuse an archive that unpacks to more; the official one unpacks to 186 MB."""
MAX_MEMBER_BYTES = 64 * 2**20
"""Refuse a larger member; the official batches have 31 MB, or 47 MB where NumPy 2 writes them with protocol 2."""

ATTEMPTS = 4
"""How often a download is tried while the connection, not the answer, is at fault."""

_CHECKSUM = re.compile(r"md5:[0-9a-fA-F]{32}|sha256:[0-9a-fA-F]{64}")
_NUMBERS = ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8")


@dataclass(frozen=True)
class Split:
    """The pictures of one split.

    Args:
        images: uint8, shape (pictures, 3, 32, 32).
        labels: int64 from 0 to 9, shape (pictures,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def prepare(url: str, checksum: str, label: str, archive: Path | None, out: Path, cache: Path) -> None:
    """Make the netCDF file of CIFAR-10 from an archive, downloaded where no local one is given.

    Args:
        url: address of the archive.
        checksum: ``md5:…`` or ``sha256:…`` of the archive.
        label: what the pictures are, kept as the file's ``data_source``.
        archive: a local archive that takes the place of the download, read where it lies.
        out: the netCDF file to write.
        cache: folder of the downloaded archive.

    Raises:
        DataError: if there is no such archive, its checksum differs, it is damaged or holds anything but CIFAR-10, or
            there is no room for the result. Nothing half-written is left behind.
    """
    train, test = read_archive(fetch(url, checksum, archive, cache))
    store(train, test, label, checksum, out)


def fetch(url: str, checksum: str, archive: Path | None, cache: Path) -> Path:
    """Return the path of the verified archive: the local one where given, otherwise the downloaded one.

    Args:
        url: address of the archive, http or https.
        checksum: ``md5:…`` or ``sha256:…`` of the archive.
        archive: a local archive, or None for a download.
        cache: folder in which a download is kept, and found again.

    Raises:
        DataError: if the archive cannot be had or its checksum differs.
    """
    if not _CHECKSUM.fullmatch(checksum):
        raise DataError(f"the CIFAR-10 checksum {checksum!r} is neither md5: with 32 nor sha256: with 64 hex digits")
    if archive is None:
        return download("CIFAR-10", url, checksum, cache / ARCHIVE_NAME, ATTEMPTS)
    _verify(archive, checksum)
    return archive


def _verify(archive: Path, checksum: str) -> None:
    """Compare a local archive with its checksum."""
    import pooch

    algorithm, expected = checksum.lower().split(":")
    try:
        found = pooch.file_hash(str(archive), alg=algorithm)
    except OSError as error:
        raise DataError(
            f"the CIFAR-10 archive {archive} cannot be read ({error.strerror}); "
            "name an existing archive, or none to download it"
        ) from error
    if found != expected:
        raise DataError(
            f"the CIFAR-10 archive {archive} has the checksum {algorithm}:{found}, not {algorithm}:{expected}; "
            "get it again, or configure the checksum that belongs to it"
        )


def read_archive(path: Path) -> tuple[Split, Split]:
    """Read the pictures of an archive of CIFAR-10's layout, of any number of pictures, without unpacking it to disk.

    Args:
        path: a gzipped tar archive whose checksum has been verified.

    Returns:
        The training and the test split.

    Raises:
        DataError: if the archive is damaged, has members outside of its folder, links or members of an absurd size,
            lacks a batch, or if a batch holds anything but labelled pictures.
    """
    members = _read_members(path)
    missing = [name for name in TRAIN_BATCHES + TEST_BATCHES if name not in members]
    if missing:
        raise DataError(
            f"the archive {path} lacks {', '.join(f'{FOLDER}/{name}' for name in missing)}; "
            "use a complete archive of the python version of CIFAR-10"
        )
    train = _join([_read_batch(members.pop(name), f"{FOLDER}/{name} in {path}") for name in TRAIN_BATCHES])
    test = _join([_read_batch(members.pop(name), f"{FOLDER}/{name} in {path}") for name in TEST_BATCHES])
    return train, test


def _join(splits: list[Split]) -> Split:
    return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


def _read_members(path: Path) -> dict[str, bytes]:
    """Read the batches' bytes.

    The archive is unpacked in memory, and not beyond a limit: no member, header or padding of any size can fill it.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_ARCHIVE_BYTES + 1)
        if len(content) > MAX_ARCHIVE_BYTES:
            raise DataError(
                f"the archive {path} unpacks to more than {MAX_ARCHIVE_BYTES >> 20} MiB; it is not CIFAR-10"
            )
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            members = {}
            for member in tar:
                name = _checked_name(member, path)
                if name in members:
                    raise DataError(f"the archive {path} has two members {member.name!r}; it is not CIFAR-10")
                file = tar.extractfile(member) if name in TRAIN_BATCHES + TEST_BATCHES else None
                if file is not None:
                    members[name] = file.read()
            return members
    except (EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile) as error:
        raise DataError(f"the archive {path} is truncated or damaged ({error}); get it again") from error
    except OSError as error:
        raise DataError(f"the archive {path} cannot be read ({error.strerror}); name a readable file") from error


def _checked_name(member: tarfile.TarInfo, path: Path) -> str:
    """Return the member's name inside of the archive's folder."""
    where = f"the archive {path} has a member {member.name!r}"
    advice = "it is not CIFAR-10 and was not unpacked"
    name = PurePosixPath(member.name)
    if ".." in name.parts or name.parts[:1] != (FOLDER,):
        raise DataError(f"{where} outside of the folder {FOLDER}; {advice}")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise DataError(f"{where} that is a link or another special file; {advice}")
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(f"{where} of {member.size} bytes, more than any batch has; {advice}")
    return str(name.relative_to(FOLDER))


def _read_batch(content: bytes, where: str) -> Split:
    """Read one batch's pickle.

    Args:
        content: the pickle.
        where: the member and its archive, for messages.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"the batch {where} is damaged or hostile ({_one_line(error)}); get the archive again"
        ) from error
    if not isinstance(batch, dict):
        raise DataError(f"the batch {where} is a {type(batch).__name__}, not a dict; use an archive of CIFAR-10")
    fields = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    return _checked_batch(_plain(fields.get("data")), _plain(fields.get("labels")), where)


def _checked_batch(data: Any, labels: Any, where: str) -> Split:
    """Return the batch's fields as a Split."""
    pixels = int(np.prod(SHAPE))
    advice = "use an archive of CIFAR-10"
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != pixels:
        raise DataError(f"'data' of the batch {where} is not a uint8 array of shape (pictures, {pixels}); {advice}")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or len(labels) != len(data) or not labels:
        raise DataError(f"'labels' of the batch {where} are not one for each of {len(data)} pictures; {advice}")
    labels = [_plain(label) for label in labels]
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise DataError(f"'labels' of the batch {where} are not whole numbers from 0 to {len(CLASSES) - 1}; {advice}")
    return Split(data.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64))


class _DType:
    """Stands for a pickled ``numpy.dtype``: its name first, its byte order in the state."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if name not in _NUMBERS:
            raise pickle.UnpicklingError(f"an array of {name!r} is not allowed, whole numbers only")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a pickled ``numpy.ndarray``, whose content is in the state."""

    __slots__ = ("value",)

    def __init__(self, value: NDArray[Any] | None = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C").value


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    order = order.decode("latin1") if isinstance(order, bytes) else order
    return _Array(np.frombuffer(content, dtype.dtype).reshape(shape, order=order))


def _scalar(dtype: Any, content: Any) -> _Array:
    return _array(content, dtype, (), "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand for ``_codecs.encode``, by which Python 3 writes bytes with protocol 2, always in Latin-1."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not allowed, latin1 only")
    return bytes(text.encode("latin1"))


def _plain(value: Any) -> Any:
    """Return the array, or the number, that a stand-in holds; anything else as it is."""
    if not isinstance(value, _Array):
        return value
    return value.value.item() if value.value is not None and value.value.ndim == 0 else value.value


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): lambda: None,
    ("numpy", "dtype"): _DType,
    ("multiarray", "_reconstruct"): lambda *_: _Array(),
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _array,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that calls nothing but the stand-ins above: not even NumPy's own functions.

    Python 2 pickles name ``numpy.core``, those of NumPy 2 ``numpy._core``; both give the same stand-ins.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        known = re.sub(r"^numpy\._?core\.", "", module)
        if (known, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays and plain containers are allowed")
        stand_in = _STAND_INS[known, name]
        # A pickle can set attributes of what it names, so it gets a function that lives no longer than itself.
        return lambda *arguments: stand_in(*arguments)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def store(train: Split, test: Split, source: str, checksum: str, out: Path) -> None:
    """Write both splits to one netCDF file, whole or not at all.

    Args:
        train: the training split.
        test: the test split.
        source: what the pictures are, kept as ``data_source``.
        checksum: the archive's checksum, kept as ``archive_checksum``.
        out: the file.

    Raises:
        DataError: if the file cannot be written.
    """
    # The file is made in memory: a full disk is then an ordinary error of one write, and leaves no broken HDF5 handle.
    content = _netcdf(train, test, source, checksum)
    try:
        with leaving_nothing(out.parent):
            write_atomically(out, content)
    except FileError as error:
        raise DataError(str(error)) from error


def _netcdf(train: Split, test: Split, source: str, checksum: str) -> memoryview:
    """Return the content of the netCDF file."""
    import netCDF4

    dataset = netCDF4.Dataset("cifar10.nc", "w", format="NETCDF4", memory=train.images.nbytes + test.images.nbytes)
    dataset.setncatts(
        {
            "Conventions": "CF-1.10",
            "title": "CIFAR-10, 32 by 32 colour pictures in ten classes",
            "history": f"read from an archive with checksum {checksum}",
            "data_source": source,
            "archive_checksum": checksum,
        }
    )
    for name, size in zip(("channel", "row", "column"), SHAPE, strict=True):
        dataset.createDimension(name, size)
    for split, name in ((train, "train"), (test, "test")):
        sample = f"{name}_sample"
        dataset.createDimension(sample, len(split.labels))
        # Without compression: zlib saves 7 % of the size, and writing takes 60 times as long.
        images = dataset.createVariable(
            f"{name}_images", "u1", (sample, "channel", "row", "column"), fill_value=False, contiguous=True
        )
        images.setncatts({"units": "1", "long_name": f"{name} pictures, red, green and blue from 0 to 255"})
        images[:] = split.images
        labels = dataset.createVariable(f"{name}_labels", "i1", (sample,), fill_value=False, contiguous=True)
        labels.setncatts(
            {
                "units": "1",
                "long_name": f"classes of the {name} pictures",
                "flag_values": np.arange(len(CLASSES), dtype=np.int8),
                "flag_meanings": " ".join(CLASSES),
            }
        )
        labels[:] = split.labels
    content: memoryview = dataset.close()
    return content


def archive_of(path: Path) -> str:
    """Return the checksum of the archive that a file of :func:`prepare` was made from, or "" where it is none.

    Raises:
        FileError: if the disk does not let it be read.
    """
    import netCDF4

    try:
        with netCDF4.Dataset(str(path)) as dataset:
            return str(dataset.getncattr("archive_checksum")).lower()
    except (OSError, AttributeError, RuntimeError):
        check_readable(path)
        return ""


def load(path: Path, checksum: str | None = None) -> Images:
    """Read the netCDF file that :func:`prepare` makes.

    Args:
        path: the file.
        checksum: of the archive that it has to come from; None takes any.

    Returns:
        The pictures, ``source`` being the file's ``data_source``.

    Raises:
        DataError: if there is no such file, it is not one that :func:`prepare` makes, or it comes from another archive.
        FileError: if the disk does not let it be read.
    """
    import netCDF4

    from reproduction.data.images import Images

    try:
        with netCDF4.Dataset(str(path)) as dataset:
            dataset.set_auto_mask(False)
            found = str(dataset.getncattr("archive_checksum"))
            if checksum is not None and found.lower() != checksum.lower():
                raise DataError(f"{path} comes from the archive {found}, not {checksum}; make it again with snakemake")
            return Images(
                train_images=np.asarray(dataset["train_images"][:]),
                train_labels=np.asarray(dataset["train_labels"][:], dtype=np.int64),
                test_images=np.asarray(dataset["test_images"][:]),
                test_labels=np.asarray(dataset["test_labels"][:], dtype=np.int64),
                source=str(dataset.getncattr("data_source")),
            )
    except DataError:
        raise
    except FileNotFoundError:
        command = "snakemake cifar10 --cores 1"
        raise DataError(f"{path} is missing; {command} with the configuration of the scale fetches it") from None
    except (OSError, IndexError, AttributeError, RuntimeError, ValueError) as error:
        check_readable(path)
        raise DataError(
            f"{path} is not a readable file of CIFAR-10 ({_one_line(error)}); remove it and make it again"
        ) from error
