"""A finished scale as one archive: results, figures, report and Snakemake's records, and back into a fresh clone.

The archive is a zip file with ``manifest.json``, which has the SHA-256 of every other member. Nothing of it is opened,
and nothing put into place, before all of it was verified; what lies elsewhere than results and figures do is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from reproduction.data.download import DataError, download
from reproduction.errors import UserError
from reproduction.files import FileError, explain, move, prepare_folder, write_atomically
from reproduction.pipeline import fingerprints, provenance
from reproduction.pipeline.config import SCALES, Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import points_of
from reproduction.pipeline.snakemake.records import keep_records, merge_records

MANIFEST = "manifest.json"
FORMAT = 1
MAX_BYTES = 16 * 2**30
"""Refuse an archive that unpacks to more; the scale quick has 50 MB."""
MAX_FILES = 200_000
ATTEMPTS = 4
_BLOCK = 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)


class PackError(UserError, ValueError):
    """An archive cannot be made or is not one of ours."""


def pack(config: Config, layout: Layout, out: Path) -> list[str]:
    """Write the archive of a scale; return lines that say what it holds, and its checksum.

    Raises:
        PackError: if the scale has a result file that is missing.
        FileError: if a file cannot be read or written.
    """
    missing = [name for name in config.experiments if not layout.result(config.scale, name).is_file()]
    if missing:
        raise PackError(f"{layout.result(config.scale, missing[0])} is missing; run snakemake at this scale first")
    keep_records(layout.root, layout.records)
    files = sorted(set(_files(config, layout)))
    prepare_folder(out)
    partial = out.with_name(f".{out.name}.tmp")
    try:
        sums = _write(partial, files, layout.root, config.scale)
        move(partial, out)
        checksum = _sha256(out)
    except OSError as error:
        raise FileError(explain(error, out)) from None
    finally:
        partial.unlink(missing_ok=True)
    return [f"{out}: {len(sums)} files of the scale {config.scale}, {out.stat().st_size / 1e6:.1f} MB", checksum]


def _files(config: Config, layout: Layout) -> Iterator[Path]:
    scale = config.scale
    for name in config.experiments:
        for point in points_of(config, name):
            yield from filter(Path.is_file, (layout.point(point.name), layout.point_benchmark(point.name)))
    folders = (layout.scale(scale), layout.figures(scale), layout.report(scale), layout.benchmark(scale, "x").parent)
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and _belongs(path.relative_to(layout.root)))
    yield from filter(Path.is_file, [layout.records, layout.fingerprints / fingerprints.ACCEPTED])


def _write(out: Path, files: list[Path], root: Path, scale: str) -> dict[str, str]:
    """Write the members, all of one age, so that the same files give the same bytes, and return their checksums."""
    sums = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = path.relative_to(root).as_posix()
            sums[name] = _add(archive, name, path)
        about = {"format": FORMAT, "scale": scale, "code_version": provenance.code_version(), "files": sums}
        archive.writestr(zipfile.ZipInfo(MANIFEST, _EPOCH), json.dumps(about, indent=1))
    return sums


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.file_size = path.stat().st_size
    total = hashlib.sha256()
    with open(path, "rb") as source, archive.open(member, "w") as target:
        while block := source.read(_BLOCK):
            total.update(block)
            target.write(block)
    return total.hexdigest()


def fetch(source: str, layout: Layout, checksum: str | None = None) -> list[str]:
    """Unpack an archive of :func:`pack` into a project, and return lines that say what came.

    Args:
        source: the archive's file, or its address, http or https.
        layout: the project's paths.
        checksum: ``sha256:…`` of the archive, checked before it is opened.

    Raises:
        DataError: if it cannot be downloaded, or the checksum differs.
        PackError: if it is not an archive of ours, is damaged, or would change a file that is here.
        FileError: if a file cannot be written. Nothing is in place then, or the same command goes on.
    """
    staging = layout.results / ".fetched"
    shutil.rmtree(staging, ignore_errors=True)
    made = [path for path in (layout.results,) if not path.exists()]
    try:
        prepare_folder(staging / "files" / "x")
        archive = _archive(source, checksum, staging)
        manifest = _unpack(archive, staging / "files", str(archive) if "://" not in source else source)
        _put_in_place(manifest, staging / "files", layout)
    except OSError as error:
        raise error if isinstance(error, UserError) else FileError(explain(error, layout.results)) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    scale, files = manifest["scale"], len(manifest["files"])
    return [
        f"{files} files of the scale {scale}, made by {manifest['code_version']}",
        f"snakemake --cores all --config scale={scale} has nothing to do where this is the same code",
    ]


def _archive(source: str, checksum: str | None, staging: Path) -> Path:
    if "://" in source:
        return download("the archive", source, checksum, staging / "archive.zip", ATTEMPTS)
    path = Path(source)
    if not path.is_file():
        raise PackError(f"{path} is missing; name an archive that mirrorsym pack wrote, or its address")
    if checksum is not None and (found := _sha256(path)) != checksum.lower():
        raise DataError(f"{path} has the checksum {found}, not {checksum}; get it again")
    return path


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _unpack(archive: Path, folder: Path, called: str) -> dict[str, Any]:
    """Unpack all members into a folder of their own, each held against the manifest, which is returned."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            manifest = _manifest(content, members, called)
            for member in members:
                if member.filename != MANIFEST:
                    with content.open(member) as source:
                        _unpack_one(source, member, folder, manifest["files"], called)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise PackError(f"{called} is not an archive of mirrorsym pack, or damaged ({said}); get it again") from None
    return manifest


def _manifest(content: zipfile.ZipFile, members: list[zipfile.ZipInfo], called: str) -> dict[str, Any]:
    """Return the manifest, after names and sizes of all members were checked against it."""
    advice = "it was not unpacked"
    names = [member.filename for member in members]
    if len(names) != len({name.casefold() for name in names}) or len(names) > MAX_FILES:
        raise PackError(f"{called} has members of the same name, or far too many; {advice}")
    if (size := sum(member.file_size for member in members)) > MAX_BYTES:
        raise PackError(f"{called} unpacks to {size / 2**30:.0f} GiB, more than {MAX_BYTES >> 30}; {advice}")
    for member in members:
        kind = member.external_attr >> 28  # of Unix: 8 is a file, 0 where nothing is said
        if member.is_dir() or kind not in (0, 8) or member.flag_bits & 1:
            raise PackError(f"{called} has a member {member.filename!r} that is no plain file; {advice}")
        if member.filename != MANIFEST and not _belongs(PurePosixPath(member.filename)):
            raise PackError(f"{called} has a member {member.filename!r} where no result or figure lies; {advice}")
    try:
        found = json.loads(content.read(MANIFEST))
        files: Mapping[str, str] = found["files"]
        whole = {"scale": str(found["scale"]), "code_version": str(found["code_version"]), "files": dict(files)}
        if found["format"] != FORMAT or whole["scale"] not in SCALES:
            raise ValueError("format")
    except (KeyError, ValueError, TypeError):
        raise PackError(f"{called} has no {MANIFEST} of mirrorsym pack; {advice}") from None
    if set(files) != set(names) - {MANIFEST}:
        wrong = min(set(files) ^ (set(names) - {MANIFEST}))
        raise PackError(f"{called}: {wrong!r} is not both in the archive and in its {MANIFEST}; {advice}")
    return whole


def _unpack_one(source: IO[bytes], member: zipfile.ZipInfo, folder: Path, sums: Mapping[str, str], called: str) -> None:
    out, total, left = folder / member.filename, hashlib.sha256(), member.file_size
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "wb") as file:
        while (block := source.read(_BLOCK)) and left >= 0:
            left -= len(block)
            total.update(block)
            file.write(block)
    if left or total.hexdigest() != sums[member.filename]:
        raise PackError(f"{called}: {member.filename} is not what {MANIFEST} says; get the archive again")


def _belongs(path: Path | PurePosixPath) -> bool:
    """True for the path of a file, below a project's folder, that may lie in an archive."""
    parts = path.parts
    if path.is_absolute() or any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return False
    if path in (type(path)("results/records.json"), type(path)("results/fingerprints/accepted.json")):
        return True
    places: list[tuple[str, ...]] = [("results", "points"), ("results", "benchmarks")]
    for scale in SCALES:
        places += [("results", scale), ("paper", "figures", scale), ("paper", scale)]
    return any(parts[: len(place)] == place and len(parts) > len(place) for place in places)


def _put_in_place(manifest: Mapping[str, Any], staged: Path, layout: Layout) -> None:
    """Move all files into the project, after it was checked that none is there with other content."""
    records = layout.records.relative_to(layout.root).as_posix()
    places = {name: layout.root / name for name in manifest["files"]}
    for name, place in places.items():
        other = place.exists() and (not place.is_file() or _sha256(place) != f"sha256:{manifest['files'][name]}")
        if other and name != records:
            raise PackError(f"{place} is here with other content; unpack into a fresh clone, or remove it first")
    for name, place in places.items():
        if name == records:
            write_atomically(place, merge_records(place, staged / name))
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            move(staged / name, place)
