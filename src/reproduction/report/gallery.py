"""The README's gallery: small copies of a scale's figures, with scale and settings under each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reproduction.files import FileError, write_atomically
from reproduction.pipeline import store
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.notes import Origins, by_origin

START, END = "<!-- gallery: made by `mirrorsym gallery` -->", "<!-- end of the gallery -->"
WIDTH = 900
"""Pixels of a picture's longer side."""


def write_gallery(config: Config, layout: Layout) -> list[Path]:
    """Copy a scale's figures, made smaller, to ``docs/gallery`` and list them in README.md between two markers.

    Raises:
        FileError: if a figure or a result file is missing, or a file cannot be written.
    """
    gallery = layout.root / "docs" / "gallery"
    entries = []
    for name, figure in config.figures.items():
        write_atomically(gallery / f"{name}.png", shrunk(layout.figure(config.scale, name, "png")))
        lines = [caption(layout.result(config.scale, part), config.origins_of(part)) for part in figure.experiments]
        lines = lines or ["Computed from the definition; no experiment."]
        under = "<br>\n".join([figure.see] * bool(figure.see) + lines)
        entries.append(f"### {name}: {figure.title}\n\n![{name}](docs/gallery/{name}.png)\n\n{under}\n")
    readme = layout.root / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    write_atomically(readme, "\n".join([before + START, "", *entries, END + after]))
    return sorted(gallery.glob("*.png"))


def caption(result: Path, origins: Origins) -> str:
    """Return one line on a result file: experiment, scale, seeds, and settings by where they come from.

    Raises:
        FileError: if the file is missing.
    """
    dataset = store.read(result)
    note = dataset.attrs["scale_note"] or dataset.attrs["scale"]
    settings = store.settings_of(dataset)

    def listed(names: Iterable[str]) -> str:
        return ", ".join(f"{name} {_short(settings[name])}" for name in names if name in settings)

    parts = [(head, listed(names)) for head, names in by_origin(origins)]
    said = "; ".join(f"{head}: {names}" for head, names in parts if names)
    seeds = dataset.sizes["seed"]
    return f"`{dataset.attrs['experiment']}` ({note}; {seeds} {'seed' if seeds == 1 else 'seeds'}) {said}."


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value)) if len(value) <= 6 else f"{len(value)} values"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shrunk(source: Path) -> bytes:
    """Return a picture as a PNG of at most ``WIDTH`` pixels and 256 colours.

    Raises:
        FileError: if there is none.
    """
    import io

    from PIL import Image

    if not source.is_file():
        raise FileError(f"{source} is missing; make it with snakemake")
    buffer = io.BytesIO()
    with Image.open(source) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        # The median cut, the default, gives the ends of a colour bar the wrong colours.
        small.quantize(256, Image.Quantize.FASTOCTREE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
