"""What is packed comes back the same elsewhere; a hostile or damaged archive puts nothing into place."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reproduction.data.download import DataError
from reproduction.errors import UserError
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.pack import MANIFEST, PackError, fetch, pack
from reproduction.pipeline.points import points_of

SWEEP = [{"parameterization": ["vanilla"], "noise_std": [1], "learning_rate": [0.1]}]
CONFIG = Config.model_validate(
    {
        "cifar10": {"url": "https://example.org", "checksum": "md5:" + "0" * 32},
        "experiments": {"mine": {"module": "sparsity", "seeds": 2, "sweep": SWEEP}},
        "figures": {},
    }
)


def listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """Results of the scale quick, and files that belong to others."""
    layout = Layout(tmp_path / "here")
    points = [layout.point(point.name) for point in points_of(CONFIG, "mine")]
    accepted = layout.fingerprints / "accepted.json"
    packed = [*points, layout.result("quick", "mine"), layout.claims("quick"), layout.figure("quick", "f", "pdf")]
    packed += [layout.executed("quick", "f"), layout.pdf("quick"), accepted]
    others = [layout.result("paper", "mine"), layout.lock, layout.cache / "fonts", layout.root / "src" / "code.py"]
    for number, path in enumerate([*packed, *others]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (number + 1) * 100_000)
    records = layout.root / ".snakemake" / "metadata"
    records.mkdir(parents=True)
    (records / "cmVzdWx0cw==").write_text('{"rule": "collect"}')
    return layout


@pytest.fixture
def archive(project: Layout, tmp_path: Path) -> Path:
    pack(CONFIG, project, tmp_path / "out" / "quick.zip")
    return tmp_path / "out" / "quick.zip"


def test_what_is_packed_comes_back_elsewhere(project: Layout, archive: Path, tmp_path: Path) -> None:
    there = Layout(tmp_path / "there")
    there.root.mkdir()
    assert "9 files of the scale quick" in fetch(str(archive), there)[0]
    before, after = listing(project.root), listing(there.root)
    assert set(after) < set(before)
    assert all(before[name] == content for name, content in after.items())
    left = {name for name in set(before) - set(after) if not name.startswith(".snakemake")}
    assert left == {"results/paper/mine.nc", "results/.lock", "results/.cache/fonts", "src/code.py"}
    assert "collect" in there.records.read_text()
    fetch(str(archive), there)  # once more: what is there stays
    assert listing(there.root) == after


def test_the_same_files_give_the_same_archive(project: Layout, archive: Path, tmp_path: Path) -> None:
    said = pack(CONFIG, project, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert said[1] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert fetch(str(archive), Layout(tmp_path / "there"), said[1])


def test_a_scale_that_is_not_finished_is_not_packed(project: Layout, tmp_path: Path) -> None:
    project.result("quick", "mine").unlink()
    with pytest.raises(PackError, match=r"results/quick/mine.nc is missing; run snakemake"):
        pack(CONFIG, project, tmp_path / "quick.zip")
    assert not (tmp_path / "quick.zip").exists()


def test_what_is_here_with_other_content_stays(archive: Path, tmp_path: Path) -> None:
    there = Layout(tmp_path / "there")
    there.claims("quick").parent.mkdir(parents=True)
    there.claims("quick").write_text("my own")
    with pytest.raises(PackError, match=r"claims.json is here with other content"):
        fetch(str(archive), there)
    assert listing(there.root) == {"results/quick/claims.json": b"my own"}


def test_records_of_two_scales_are_put_together(archive: Path, tmp_path: Path) -> None:
    there = Layout(tmp_path / "there")
    there.results.mkdir(parents=True)
    there.records.write_text('{"other": {"rule": "claims"}}')
    fetch(str(archive), there)
    assert {record["rule"] for record in json.loads(there.records.read_text()).values()} == {"claims", "collect"}


def test_an_archive_comes_over_http(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.chdir(archive.parent)
    monkeypatch.delenv("http_proxy", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/quick.zip"
        with pytest.raises(DataError, match="does not have the configured checksum"):
            fetch(url, Layout(tmp_path / "there"), f"sha256:{'0' * 64}")
        assert listing(tmp_path / "there") == {}
        assert fetch(url, Layout(tmp_path / "there"))
        server.shutdown()
    assert not (tmp_path / "there" / "results" / ".fetched").exists()


def member(name: str, kind: int = 8) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = kind << 28
    return found


def about(name: str, content: bytes = b"x", **changes: object) -> str:
    files = {name: hashlib.sha256(content).hexdigest()}
    return json.dumps({"format": 1, "scale": "quick", "code_version": "1", "files": files, **changes})


PLACE = "results/quick/mine.nc"
Write = Callable[[zipfile.ZipFile], None]


def one(name: str, kind: int = 8, manifest: str | None = None, content: bytes = b"x") -> Write:
    def write(made: zipfile.ZipFile) -> None:
        made.writestr(member(name, kind), content)
        made.writestr(MANIFEST, about(name) if manifest is None else manifest)

    return write


def twice(made: zipfile.ZipFile) -> None:
    made.writestr(PLACE, b"x")
    made.writestr(PLACE.replace("mine", "MINE"), b"x")
    made.writestr(MANIFEST, about(PLACE))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (one("../outside.nc"), "where no result or figure lies"),
        (one("/tmp/outside.nc"), "where no result or figure lies"),
        (one("results/quick/../../src/x.py"), "where no result or figure lies"),
        (one("results/quick/..\\..\\x.py"), "where no result or figure lies"),
        (one("src/reproduction/files.py"), "where no result or figure lies"),
        (one("results/fingerprints/x.json"), "where no result or figure lies"),
        (one("results/quick/.hidden"), "where no result or figure lies"),
        (one("Snakefile"), "where no result or figure lies"),
        (one(PLACE, kind=10), "is no plain file"),  # a link
        (one("results/quick/"), "is no plain file"),
        (twice, "members of the same name"),
        (one(PLACE, manifest="not JSON"), f"has no {MANIFEST}"),
        (one(PLACE, manifest="[]"), f"has no {MANIFEST}"),
        (one(PLACE, manifest=about(PLACE, scale="huge")), f"has no {MANIFEST}"),
        (one(PLACE, manifest=about(PLACE, format=2)), f"has no {MANIFEST}"),
        (one(PLACE, manifest=about("results/quick/other.nc")), "is not both in the archive and in its"),
        (one(PLACE, content=b"y"), f"mine.nc is not what {MANIFEST} says"),
        (lambda made: made.writestr(PLACE, b"x"), f"has no {MANIFEST}"),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path: Path, write: Write, says: str) -> None:
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as made:
        write(made)
    before = listing(tmp_path)
    with pytest.raises(PackError, match=says):
        fetch(str(tmp_path / "hostile.zip"), Layout(tmp_path / "there"))
    assert listing(tmp_path) == before
    assert not (tmp_path / "there" / "results").exists()


def test_an_archive_that_unpacks_without_end_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproduction.pipeline.pack.MAX_BYTES", 1_000_000)
    with pytest.raises(PackError, match="unpacks to"):
        fetch(str(archive), Layout(tmp_path / "there"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_archive_is_one_sentence(archive: Path, tmp_path: Path, damage: str) -> None:
    content = archive.read_bytes()
    middle = len(content) // 3
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    archive.write_bytes({"cut": content[:middle], "flipped": flipped, "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UserError, match=r"get (it|the archive) again"):
        fetch(str(archive), Layout(tmp_path / "there"))
    assert listing(tmp_path / "there") == {}


def test_a_missing_archive_or_another_checksum_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"nowhere.zip is missing"):
        fetch(str(tmp_path / "nowhere.zip"), Layout(tmp_path / "there"))
    with pytest.raises(DataError, match=f"has the checksum .* not sha256:{'0' * 64}"):
        fetch(str(archive), Layout(tmp_path / "there"), f"sha256:{'0' * 64}")
