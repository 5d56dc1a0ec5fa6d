"""CIFAR-10 archives: those of every kind of pickle are read, damaged and hostile ones refused."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import resource
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reproduction.data import cifar10
from reproduction.data.cifar10 import DataError, fetch, load, prepare, read_archive

BATCHES = (*cifar10.TRAIN_BATCHES, *cifar10.TEST_BATCHES)
SIZES = (4, 4, 4, 4, 3, 5)
Batch = tuple[NDArray[np.uint8], list[int]]


def numpy_2(data: NDArray[np.uint8], labels: list[int], protocol: int = 2) -> bytes:
    """The pickle that NumPy 2 writes."""
    names = [f"picture_{i}.png".encode() for i in range(len(labels))]
    return pickle.dumps(
        {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": names}, protocol=protocol
    )


def numpy_1(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The pickle that NumPy 1 under Python 3 writes: the same with the old module's name."""
    return numpy_2(data, labels).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python_2(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The pickle that Python 2 writes, as in the official archive: strings without an encoding, opcode by opcode."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + len(text).to_bytes(4, "little") + text

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"\x87R"
    shape = number(data.shape[0]) + number(data.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + string(data.tobytes()) + b"tb"
    values = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + values + b"u."


def protocol_5_text_keys(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    return pickle.dumps({"data": data, "labels": [np.int64(label) for label in labels]}, protocol=5)


def fortran_and_label_array(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    return pickle.dumps({"data": np.asfortranarray(data), "labels": np.array(labels, dtype=">i4")}, protocol=2)


@pytest.fixture
def batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (size, 3072), dtype=np.uint8), rng.integers(0, 10, size).tolist()) for size in SIZES]


def members(batches: list[Batch], dumps: Callable[..., bytes] = numpy_2) -> dict[str, bytes]:
    found = {f"{cifar10.FOLDER}/{name}": dumps(*batch) for name, batch in zip(BATCHES, batches, strict=True)}
    # Files that nobody reads need not be readable.
    return found | {f"{cifar10.FOLDER}/batches.meta": b"?", f"{cifar10.FOLDER}/readme.html": b"<html>"}


def write(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in special:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path: Path, batches: list[Batch]) -> Path:
    return write(tmp_path / "archive.tar.gz", members(batches))


def one_sentence(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# Reading


@pytest.mark.parametrize("dumps", [python_2, numpy_1, numpy_2, protocol_5_text_keys, fortran_and_label_array])
def test_every_kind_of_pickle_is_read(
    tmp_path: Path, batches: list[Batch], dumps: Callable[[NDArray[np.uint8], list[int]], bytes]
) -> None:
    train, test = read_archive(write(tmp_path / "a.tar.gz", members(batches, dumps)))
    expected = np.concatenate([data for data, _ in batches[:5]]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(train.images, expected)
    np.testing.assert_array_equal(train.labels, np.concatenate([labels for _, labels in batches[:5]]))
    np.testing.assert_array_equal(test.images.reshape(-1, 3072), batches[5][0])
    np.testing.assert_array_equal(test.labels, batches[5][1])
    assert train.images.dtype == test.images.dtype == np.uint8
    assert train.labels.dtype == test.labels.dtype == np.int64


def test_the_pickles_are_of_different_kinds(batches: list[Batch]) -> None:
    assert pickle.loads(python_2(*batches[0]), encoding="bytes").keys() == {b"data", b"labels"}
    assert b"numpy.core" in python_2(*batches[0])
    assert b"numpy.core" in numpy_1(*batches[0])
    assert b"_codecs" in numpy_1(*batches[0])
    assert b"numpy._core" in numpy_2(*batches[0])
    assert b"_frombuffer" in protocol_5_text_keys(*batches[0])


def test_prepare_and_load_give_the_pictures_back(tmp_path: Path, archive: Path, batches: list[Batch]) -> None:
    import xarray as xr

    out, cache = tmp_path / "data" / "cifar10.nc", tmp_path / "cache"
    prepare("http://unused.invalid/", sha256(archive), "kept as JPEG", archive, out, cache)
    images = load(out)
    np.testing.assert_array_equal(images.train_images.reshape(-1, 3072), np.concatenate([x for x, _ in batches[:5]]))
    np.testing.assert_array_equal(images.test_labels, batches[5][1])
    assert images.train_images.dtype == np.uint8
    assert images.train_labels.dtype == images.test_labels.dtype == np.int64
    assert images.source == "kept as JPEG"
    assert [path.name for path in out.parent.iterdir()] == ["cifar10.nc"]
    assert not cache.exists()
    with xr.open_dataset(out) as dataset:
        assert dataset.attrs["Conventions"] == "CF-1.10"
        assert dataset.attrs["data_source"] == "kept as JPEG"
        assert dataset.attrs["archive_checksum"] == sha256(archive)
        assert dataset.train_images.dims == ("train_sample", "channel", "row", "column")
        for variable in dataset.variables.values():
            assert {"units", "long_name"} <= variable.attrs.keys()
            assert "_FillValue" not in variable.encoding


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path / "missing.nc")
    one_sentence(error, "missing.nc")
    (tmp_path / "broken.nc").write_bytes(b"not netCDF")
    with pytest.raises(DataError) as error:
        load(tmp_path / "broken.nc")
    one_sentence(error, "broken.nc", "make it again")


# Checksums and downloads


def test_a_wrong_checksum_stops_before_anything_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"anything")
    monkeypatch.setattr(cifar10, "read_archive", lambda path: pytest.fail("opened"))
    with pytest.raises(DataError) as error:
        prepare("", "md5:" + "0" * 32, "label", tmp_path / "a.tar.gz", tmp_path / "o" / "x.nc", tmp_path / "cache")
    one_sentence(error, "a.tar.gz", "md5:" + "0" * 32, hashlib.md5(b"anything").hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_md5_and_upper_case_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"anything")
    assert fetch("", "md5:" + hashlib.md5(b"anything").hexdigest().upper(), path, tmp_path) == path


@pytest.mark.parametrize("checksum", ["", "md5:12", "sha256:" + "g" * 64, "0" * 64, "crc32:01234567"])
def test_a_malformed_checksum_is_refused(tmp_path: Path, checksum: str) -> None:
    with pytest.raises(DataError) as error:
        fetch("", checksum, None, tmp_path)
    one_sentence(error, repr(checksum))


def test_a_missing_local_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        fetch("", "md5:" + "0" * 32, tmp_path / "none.tar.gz", tmp_path)
    one_sentence(error, "none.tar.gz")


class Server(http.server.ThreadingHTTPServer):
    """Serves one content on the loopback interface, after some failures."""

    content = b""
    failures: list[int | str]
    requests: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        failure = self.server.failures.pop(0) if self.server.failures else 200
        if isinstance(failure, int) and failure != 200:
            self.send_error(failure)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: 10 if failure == "cut" else None])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.failures, server.requests = [], 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_is_verified_kept_and_found_again(
    tmp_path: Path, archive: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.content = archive.read_bytes()
    out, cache = tmp_path / "data" / "cifar10.nc", tmp_path / "new" / "cache"
    prepare(server.url, sha256(archive), "label", None, out, cache)
    assert "%" in capfd.readouterr().err  # the progress bar
    assert len(load(out).test_labels) == SIZES[-1]
    path = fetch(server.url, sha256(archive), None, cache)
    assert path.read_bytes() == server.content
    assert list(cache.iterdir()) == [path]
    assert server.requests == 1


def test_a_changed_checksum_downloads_again(tmp_path: Path, server: Server) -> None:
    server.content = b"one"
    fetch(server.url, "md5:" + hashlib.md5(b"one").hexdigest(), None, tmp_path)
    server.content = b"two"
    assert fetch(server.url, "md5:" + hashlib.md5(b"two").hexdigest(), None, tmp_path).read_bytes() == b"two"


@pytest.mark.parametrize("failure", [503, "cut"])
def test_a_download_is_tried_again(tmp_path: Path, archive: Path, server: Server, failure: int | str) -> None:
    server.content = archive.read_bytes()
    server.failures = [failure, failure]
    path = fetch(server.url, sha256(archive), None, tmp_path / "cache")
    assert path.read_bytes() == server.content
    assert server.requests == 3


class RefusingProxy(Handler):
    def do_GET(self) -> None:
        self.send_error(407)

    def do_CONNECT(self) -> None:
        self.send_error(407)


@pytest.fixture
def proxy(server: Server) -> str:
    """The address, with a password, of a proxy that lets nobody through."""
    server.RequestHandlerClass = RefusingProxy
    return f"http://me:secret@127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named_without_its_password(
    tmp_path: Path, proxy: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    place = proxy.partition("@")[2]
    with pytest.raises(DataError, match=f"the proxy http://…@{place} answers 407 Proxy Authentication") as said:
        fetch(f"{scheme}://example.invalid/x.tar.gz", f"md5:{'0' * 32}", None, tmp_path / "data")
    assert "secret" not in str(said.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("address", ["foo:bar:baz", "//", "socks5://127.0.0.1:9"])
def test_a_proxy_of_no_usable_address_is_named(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", address)
    with pytest.raises(DataError, match=f"the proxy {address} is not usable .*see HTTPS_PROXY"):
        fetch("https://example.invalid/x.tar.gz", f"md5:{'0' * 32}", None, tmp_path)


def test_a_proxy_that_is_not_there_is_named(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"the proxy http://127.0.0.1:9 cannot be reached"):
        fetch("https://example.invalid/x.tar.gz", f"md5:{'0' * 32}", None, tmp_path)


@pytest.mark.parametrize("bundle", ["", "/nonexistent.pem"])
def test_a_certificate_that_is_not_trusted_is_named(
    tmp_path: Path, server: Server, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that signs for itself, or a proxy that opens what is encrypted; and a bundle that is not there."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    says = f"bundle, invalid path: {bundle}" if bundle else "the server's certificate is not trusted"
    with pytest.raises(DataError, match=f"{says}.*REQUESTS_CA_BUNDLE"):
        fetch(f"https://localhost:{server.server_port}/x.tar.gz", f"md5:{'0' * 32}", None, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_downloads_that_fail_leave_nothing(tmp_path: Path, server: Server) -> None:
    checksum, cache = "sha256:" + "0" * 64, tmp_path / "new" / "cache"
    server.failures = ["cut"] * 10
    server.content = bytes(100)
    with pytest.raises(DataError) as error:
        fetch(server.url, checksum, None, cache)
    one_sentence(error, server.url, "breaks off")
    assert server.requests == cifar10.ATTEMPTS
    server.failures, server.requests = [404], 0
    with pytest.raises(DataError) as error:
        fetch(server.url, checksum, None, cache)
    one_sentence(error, server.url, "404")
    server.failures, server.requests = [], 0
    with pytest.raises(DataError) as error:
        fetch(server.url, checksum, None, cache)
    one_sentence(error, server.url, checksum)
    assert server.requests == 1  # another file does not become the right one by asking again
    assert list(tmp_path.iterdir()) == []


def test_no_server_and_no_address(tmp_path: Path, server: Server) -> None:
    port = server.server_port
    server.server_close()
    with pytest.raises(DataError) as error:
        fetch(f"http://127.0.0.1:{port}/a.tar.gz", "md5:" + "0" * 32, None, tmp_path / "cache")
    one_sentence(error, "no connection")
    with pytest.raises(DataError) as error:
        fetch("nowhere", "md5:" + "0" * 32, None, tmp_path / "cache")
    one_sentence(error, "nowhere", "not a usable")


def test_a_cache_that_cannot_be_written(tmp_path: Path, server: Server) -> None:
    server.content = b"one"
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as error:
        fetch(server.url, "md5:" + hashlib.md5(b"one").hexdigest(), None, tmp_path / "file" / "cache")
    one_sentence(error, "cache")


# Damaged and hostile archives


@pytest.mark.parametrize("keep", [0, 5, 0.3, 0.9, -8, -1])
def test_a_truncated_archive_is_refused(tmp_path: Path, archive: Path, keep: float) -> None:
    content = archive.read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(DataError) as error:
        read_archive(path)
    one_sentence(error, "cut.tar.gz")


def test_a_tar_cut_before_it_was_zipped_is_refused(tmp_path: Path, archive: Path) -> None:
    content = gzip.decompress(archive.read_bytes())
    for size in (0, 100, len(content) // 2, len(content) // 2 // 512 * 512):
        archive.write_bytes(gzip.compress(content[:size]))
        with pytest.raises(DataError) as error:
            read_archive(archive)
        one_sentence(error, "archive.tar.gz")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"<html>404</html>", gzip.compress(b"x" * 5000)):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(DataError) as error:
            read_archive(tmp_path / "a.tar.gz")
        one_sentence(error, "a.tar.gz")


def test_missing_batches_are_named(tmp_path: Path, batches: list[Batch]) -> None:
    files = members(batches)
    del files[f"{cifar10.FOLDER}/data_batch_3"], files[f"{cifar10.FOLDER}/test_batch"]
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", files))
    one_sentence(error, "data_batch_3", "test_batch", "a.tar.gz")


def special(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "member",
    [
        special("../evil"),
        special("/etc/evil"),
        special(f"{cifar10.FOLDER}/../../evil"),
        special("elsewhere/data_batch_1"),
        special("evil"),
        special(f"{cifar10.FOLDER}/link", tarfile.SYMTYPE, "/etc/passwd"),
        special(f"{cifar10.FOLDER}/hard", tarfile.LNKTYPE, f"{cifar10.FOLDER}/test_batch"),
        special(f"{cifar10.FOLDER}/fifo", tarfile.FIFOTYPE),
        special(f"{cifar10.FOLDER}/device", tarfile.CHRTYPE),
        special(f"{cifar10.FOLDER}/big", size=2**20),
    ],
    ids=lambda member: member.name,
)
def test_members_that_do_not_belong_there_are_refused(
    tmp_path: Path, batches: list[Batch], member: tarfile.TarInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "MAX_MEMBER_BYTES", 2**20 - 1)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write(folder / "a.tar.gz", members(batches), member)
    with pytest.raises(DataError) as error:
        prepare("", sha256(path), "", path, folder / "out" / "x.nc", folder / "cache")
    one_sentence(error, "a.tar.gz", member.name)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*")] == [Path("folder"), Path("folder/a.tar.gz")]


def test_an_archive_that_unpacks_without_end_is_refused(
    tmp_path: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "MAX_ARCHIVE_BYTES", 2**20)
    # The size of a header counts too, and no member has it.
    huge = tarfile.TarInfo(f"{cifar10.FOLDER}/x")
    huge.pax_headers = {"comment": "0" * 2**21}
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", members(batches), huge))
    one_sentence(error, "a.tar.gz", "more than 1 MiB")


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def stacked(module: str, name: str, *arguments: Any) -> bytes:
    """A protocol 4 pickle that calls something by two strings, in which dots are attributes."""
    body = pickle.dumps(arguments, protocol=4)[2:-1]
    return (
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93" + body + b"R."
    )


def beside(batch: Batch, content: bytes) -> bytes:
    """A good batch with one field more, which the pickle ``content`` makes."""
    return numpy_2(*batch)[:-1] + b"U\x01x" + content[:-1] + b"s."


def test_a_further_field_alone_is_no_reason_to_refuse(tmp_path: Path, batches: list[Batch]) -> None:
    files = members(batches, lambda *batch: beside(batch, pickle.dumps([1, "x", (None, b"x")], protocol=4)))
    assert len(read_archive(write(tmp_path / "a.tar.gz", files))[1].labels) == SIZES[-1]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "call",
    [
        lambda mark: Call(os.system, f"touch {mark}"),
        lambda mark: {"data": Call(open, str(mark), "w"), "labels": []},
        lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Call(getattr, "text", "upper"),
        lambda mark: Call(np.save, str(mark), 1),
        lambda mark: Call(np.load, str(mark)),
        lambda mark: np.array([Call(open, str(mark), "w")], dtype=object),
        lambda mark: np.ones(3),
    ],
    ids=["system", "open", "eval", "getattr", "save", "load", "object array", "float array"],
)
def test_a_pickle_that_calls_something_is_refused(
    tmp_path: Path, batches: list[Batch], call: Callable[[Path], Any], protocol: int
) -> None:
    mark = tmp_path / "mark"
    files = members(batches)
    files[f"{cifar10.FOLDER}/data_batch_4"] = pickle.dumps(call(mark), protocol=protocol)
    path = write(tmp_path / "a.tar.gz", files)
    with pytest.raises(DataError) as error:
        prepare("", sha256(path), "", path, tmp_path / "out" / "x.nc", tmp_path / "cache")
    one_sentence(error, "data_batch_4", "a.tar.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(
    "content",
    [
        stacked("numpy", "core.multiarray._reconstruct", 1),
        stacked("_codecs", "encode.__globals__", 1),
        stacked("_codecs", "encode", "x", "zlib_codec"),
        stacked("_codecs", "decode", b"x", "zlib_codec"),
        stacked("numpy", "dtype", "O"),
        stacked("numpy", "dtype", "f8"),
        stacked("numpy.core.numeric", "_frombuffer", b"x", 1, (1,), "C"),
        b"cnumpy\ndtype\nN}\x8c\x08__code__K\x01s\x86b.",  # sets an attribute of what it names
        b"\x82\x01.",  # an extension's code
        b"U\x01xQ.",  # a persistent object
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, batches: list[Batch], content: bytes) -> None:
    files = members(batches)
    files[f"{cifar10.FOLDER}/test_batch"] = beside(batches[5], content)
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", files))
    one_sentence(error, "test_batch", "a.tar.gz")


def test_a_pickle_changes_nothing_that_outlives_it(tmp_path: Path, batches: list[Batch]) -> None:
    content = b"c_codecs\nencode\nN}\x8c\x0c__defaults__U\x01x\x85s\x86b."
    files = members(batches, lambda *batch: beside(batch, content))
    read_archive(write(tmp_path / "a.tar.gz", files))
    assert cifar10._encode.__defaults__ is None


@pytest.mark.parametrize("content", [pickle.dumps([1, 2]), pickle.dumps(None), b"", b"\x80\x05", b"not a pickle"])
def test_what_is_no_batch_is_refused(tmp_path: Path, batches: list[Batch], content: bytes) -> None:
    files = members(batches) | {f"{cifar10.FOLDER}/test_batch": content}
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", files))
    one_sentence(error, "test_batch", "a.tar.gz")


def test_two_members_of_one_name_are_refused(tmp_path: Path, archive: Path, batches: list[Batch]) -> None:
    name = f"{cifar10.FOLDER}/data_batch_2"
    content = members(batches)[name]
    raw = gzip.decompress(archive.read_bytes())
    plain = tmp_path / "a.tar"
    plain.write_bytes(raw)
    with tarfile.open(plain, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    archive.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError) as error:
        read_archive(archive)
    one_sentence(error, "two members", name)


GOOD = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "batch",
    [
        {"labels": [0, 1]},
        {"data": GOOD},
        {"data": GOOD.tolist(), "labels": [0, 1]},
        {"data": GOOD[:, :-1], "labels": [0, 1]},
        {"data": GOOD.reshape(2, 3, 32, 32), "labels": [0, 1]},
        {"data": GOOD.reshape(-1), "labels": [0, 1]},
        {"data": GOOD.astype(np.int64), "labels": [0, 1]},
        {"data": GOOD[:0], "labels": []},
        {"data": GOOD, "labels": [0]},
        {"data": GOOD, "labels": [0, 10]},
        {"data": GOOD, "labels": [0, -1]},
        {"data": GOOD, "labels": [0, 1.0]},
        {"data": GOOD, "labels": [0, "1"]},
        {"data": GOOD, "labels": [0, [1]]},
        {"data": GOOD, "fine_labels": [0, 1]},
    ],
)
def test_batches_of_other_content_are_refused(tmp_path: Path, batches: list[Batch], batch: dict[str, Any]) -> None:
    files = members(batches)
    files[f"{cifar10.FOLDER}/data_batch_2"] = pickle.dumps(batch, protocol=2)
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", files))
    one_sentence(error, "data_batch_2", "a.tar.gz")


def test_an_array_of_another_size_than_its_shape_is_refused(tmp_path: Path, batches: list[Batch]) -> None:
    good = python_2(*batches[0])
    shape = len(batches[0][0]).to_bytes(4, "little") + b"J" + (3072).to_bytes(4, "little")
    assert good.count(shape) == 1
    files = members(batches)
    files[f"{cifar10.FOLDER}/data_batch_1"] = good.replace(shape, (2**30).to_bytes(4, "little") + shape[4:])
    with pytest.raises(DataError) as error:
        read_archive(write(tmp_path / "a.tar.gz", files))
    one_sentence(error, "data_batch_1", "a.tar.gz")


# Writing


def test_a_full_disk_leaves_nothing(tmp_path: Path, archive: Path) -> None:
    """A limit on file sizes, which the kernel enforces in the write, stands for the disk that is full."""
    code = (
        "import sys, pathlib\nfrom reproduction.data.cifar10 import *\n"
        "archive, out = map(pathlib.Path, sys.argv[1:3])\n"
        "try:\n    prepare('', sys.argv[3], '', archive, out, out.parent)\n"
        "except DataError as error:\n    print(error)\n"
    )
    out = tmp_path / "new" / "data" / "cifar10.nc"
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive), str(out), sha256(archive)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert str(out) in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["archive.tar.gz"]


def test_a_failed_write_keeps_the_file_that_was_there(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data" / "cifar10.nc"
    prepare("", sha256(archive), "first", archive, out, tmp_path / "cache")
    before = out.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError) as error:
        prepare("", sha256(archive), "second", archive, out, tmp_path / "cache")
    one_sentence(error, "cifar10.nc")
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_load_refuses_the_file_of_another_archive(tmp_path: Path, archive: Path) -> None:
    out = tmp_path / "data" / "cifar10.nc"
    prepare("unused", sha256(archive), "made up", archive, out, tmp_path)
    assert load(out, sha256(archive)).source == "made up"
    with pytest.raises(DataError, match="not sha256:0000"):
        load(out, f"sha256:{'0' * 64}")


@pytest.mark.skipif("MIRRORSYM_TEST_ARCHIVE" not in os.environ, reason="MIRRORSYM_TEST_ARCHIVE names no archive")
def test_an_archive_of_real_pictures_is_read() -> None:
    train, test = read_archive(Path(os.environ["MIRRORSYM_TEST_ARCHIVE"]))
    for split in (train, test):
        assert split.images.shape == (len(split.labels), 3, 32, 32)
        assert len(set(np.bincount(split.labels, minlength=10))) == 1  # as many pictures of each class
        assert 60 < split.images.mean() < 180
        neighbours = np.abs(np.diff(split.images.astype(float), axis=-1)).mean()
        assert neighbours < 20, "neighbouring pixels of a picture are alike; the layout is wrong"
