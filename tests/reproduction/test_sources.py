"""What a person writes is read from a copy that content names; what running a notebook leaves in it is no content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from reproduction.files import FileError
from reproduction.pipeline import sources

FOLDER = Path("results/sources")


def written(cells: list[dict[str, Any]], **metadata: Any) -> bytes:
    known = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, **metadata}
    return json.dumps({"cells": cells, "metadata": known, "nbformat": 4, "nbformat_minor": 5}).encode()


def cell(source: Any, **changes: Any) -> dict[str, Any]:
    plain = {"cell_type": "code", "id": "one", "metadata": {}, "source": source}
    return {**plain, "execution_count": None, "outputs": [], **changes}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "fig.ipynb").write_bytes(written([cell("1 + 1")]))
    (tmp_path / "claims.yaml").write_text("- id: é", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_copy_is_named_by_its_content_alone(project: Path) -> None:
    (first,) = sources.keep(FOLDER, Path(), Path("claims.yaml"))
    assert first.relative_to(FOLDER).parts[1:] == ("claims.yaml",)
    assert first.read_bytes() == (project / "claims.yaml").read_bytes()
    os.utime(project / "claims.yaml", (0, 0))
    assert sources.keep(FOLDER, project, project / "claims.yaml") == [first]  # from another place: --directory
    (project / "claims.yaml").write_text("- id: other")
    (other,) = sources.keep(FOLDER, Path(), Path("claims.yaml"))
    assert other != first
    (project / "claims.yaml").write_text("- id: é", encoding="utf-8")
    first.write_bytes(b"- id:")  # cut short
    assert sources.keep(FOLDER, Path(), Path("claims.yaml")) == [first]
    assert first.read_text(encoding="utf-8") == "- id: é"


def test_files_that_belong_together_share_a_folder(project: Path) -> None:
    paths = [Path("claims.yaml"), Path("notebooks/fig.ipynb")]
    copies = sources.keep(FOLDER, Path(), *paths)
    assert len({copy.relative_to(FOLDER).parts[0] for copy in copies}) == 1
    assert [Path(*copy.relative_to(FOLDER).parts[1:]) for copy in copies] == paths
    assert sources.keep(FOLDER, Path(), *paths, Path("missing")) == [*paths, Path("missing")]
    assert sources.keep(FOLDER, Path()) == []


def test_of_a_file_elsewhere_the_name_is_kept(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "own.yaml"
    elsewhere.write_text("[]")
    for path in (elsewhere, Path(os.path.relpath(elsewhere))):
        (copy,) = sources.keep(FOLDER, Path(), path)
        assert copy.relative_to(FOLDER).parts[1:] == ("own.yaml",)


def test_a_file_that_cannot_be_read_is_one_sentence(project: Path) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(FileError, match=r"claims.yaml cannot be read \(Permission denied\)"):
        sources.keep(FOLDER, Path(), Path("claims.yaml"), read=refuse)


def test_a_message_names_the_file_that_a_person_changes(project: Path) -> None:
    (copy,) = sources.keep(FOLDER, Path(), Path("notebooks/fig.ipynb"), read=sources.code_of)
    assert sources.as_written(f"{copy}: cell 3 failed", FOLDER) == "notebooks/fig.ipynb: cell 3 failed"
    assert sources.as_written("results/sources/x.nc is missing", FOLDER) == "results/sources/x.nc is missing"


@pytest.mark.parametrize(
    ("run", "same"),
    [
        (written([cell("1 + 1", outputs=[{"output_type": "stream", "name": "stdout", "text": "2"}])]), True),
        (written([cell("1 + 1", execution_count=7, metadata={"execution": {"iopub.status.idle": "now"}})]), True),
        (written([cell(["1 +", " 1"], id="two")], language_info={"name": "python", "version": "3.13.1"}), True),
        (written([cell("1 + 2")]), False),
        (written([cell("1 + 1", metadata={"tags": ["parameters"]})]), False),
        (written([cell("1 + 1", cell_type="markdown")]), False),
        (written([cell("1 + 1"), cell("1 + 1")]), False),
    ],
)
def test_what_running_a_notebook_leaves_there_does_not_count(project: Path, run: bytes, same: bool) -> None:
    notebook = project / "notebooks" / "fig.ipynb"
    before = sources.code_of(notebook)
    nbformat.validate(nbformat.reads(before, as_version=4))
    notebook.write_bytes(run)
    assert (sources.code_of(notebook) == before) == same


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"cells": [1]}', b"\xff"])
def test_what_is_no_notebook_stays_as_it_is(project: Path, damaged: bytes) -> None:
    (project / "notebooks" / "fig.ipynb").write_bytes(damaged)
    assert sources.code_of(project / "notebooks" / "fig.ipynb") == damaged
