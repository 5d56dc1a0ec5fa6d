"""``python -m benchmarks.zoo``: the symmetries of every network of the zoo, into results/zoo.json and docs/zoo.md.

Each network has a process of its own, on one thread, so that its time and its memory are its own. Names after it run
those networks alone and print what was found.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import mirrorsym.symmetries
from benchmarks.zoo.check import HELD, check
from benchmarks.zoo.child import in_child
from benchmarks.zoo.expected import EXPECTED
from benchmarks.zoo.living import Living
from benchmarks.zoo.matching import distinct, reached
from benchmarks.zoo.models import FULL, SERIES, SMALL, Entry
from benchmarks.zoo.pruning import exchanges
from mirrorsym import find_symmetries
from mirrorsym.symmetries import Symmetries
from mirrorsym.symmetries.verify import Check

JSON, PAGE = Path("results/zoo.json"), Path("docs/zoo.md")
SINGLY = 30
"""All symmetries are checked at once; so many of a network are also checked one by one."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of options in malloc.h."""
GIVEN_BACK = 1 << 16
"""Memory in pieces of so many bytes is given back to the system when it is freed, while memory is measured."""


@dataclasses.dataclass
class Row:
    """What was found in a network.

    Args:
        name: the network's.
        parameters: how many numbers it trains, tied ones once.
        model_mb: what its parameters and buffers take in memory, in megabytes.
        seconds: of a processor, for finding the symmetries on one thread.
        peak_mb: how much more memory the process held at most meanwhile than with the model loaded, in megabytes.
        beside_mb: the same without what the backward passes keep of the values between the layers, in megabytes.
        kinds: how many symmetries of each kind.
        wrong: those that do not hold, in words.
        unfollowed: operations that were not followed, and how often.
        unused: parameters that no output depends on, since they take no part.
        pruning: groups of Torch-Pruning whose exchange holds, and how many of those were found; or why there are none.
        expected: symmetries written down by hand, and how many were found; None where none are.
        error: what was raised instead.
        search: which version of the search it is of, as :func:`version` has it.
    """

    name: str
    parameters: int = 0
    model_mb: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0
    beside_mb: float = 0.0
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    wrong: list[str] = dataclasses.field(default_factory=list)
    unfollowed: dict[str, int] = dataclasses.field(default_factory=dict)
    unused: int = 0
    pruning: tuple[int, int] | str = ""
    expected: tuple[int, int] | None = None
    error: str = ""
    search: str = ""


def version() -> str:
    """Return a number that the files of the search have, and no others."""
    folder = Path(mirrorsym.symmetries.__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:8]


def measure(entry: Entry) -> Row:
    """Return what is found in a network, how fast, and whether it is true."""
    find_symmetries(torch.nn.Linear(2, 2), torch.randn(2, 2))  # imports are not the network's
    model, inputs, keywords = entry.make()
    row = Row(entry.name, parameters=sum(p.numel() for p in model.parameters()), search=version())
    row.model_mb = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()]) / 1e6
    start = time.process_time()
    try:
        found = find_symmetries(model, *inputs, **keywords)
    except Exception as error:  # a network that is refused is a row of the table
        row.error = f"{type(error).__name__}: {error}"
        return row
    row.seconds = time.process_time() - start
    row.kinds = dict(collections.Counter(symmetry.kind for symmetry in found))
    row.unfollowed = dict(collections.Counter(part.operation for part in found.unfollowed))
    row.unused = len(found.unused_parameters)
    if entry.name not in SERIES:
        _verify(row, entry, found)
    return row


def memory(entry: Entry) -> tuple[float, float]:
    """Return the most memory that a search held beyond the loaded model, and that beside activations, in megabytes.

    What is freed is given back to the system at once, where the C library is GNU's, which takes time: a process that
    keeps it for what comes holds more, by as much as it likes.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, GIVEN_BACK), mallopt(M_TRIM_THRESHOLD, GIVEN_BACK)
    find_symmetries(torch.nn.Linear(2, 2), torch.randn(2, 2))
    model, inputs, keywords = entry.make()
    activations = _activations_mb(model, inputs, keywords)
    with _Peaks() as peaks, contextlib.suppress(Exception):  # the row says it
        find_symmetries(model, *inputs, **keywords)
    return max(peaks.outside, peaks.inside), max(peaks.outside, peaks.inside - activations)


def _verify(row: Row, entry: Entry, found: Symmetries) -> None:
    small = entry.name in SMALL
    model, inputs, keywords = entry.make()
    living = Living(model, inputs, keywords)
    row.wrong = [str(wrong) for wrong in check(found, living, SINGLY)]
    if small:
        larger = Living(model, inputs, keywords, seed=1, size=3.0)
        row.wrong += [str(wrong) for wrong in check(found, larger, singly=0, seed=1)]
        row.pruning = compare(entry, found, living)
    if entry.name in EXPECTED:
        expected = list(EXPECTED[entry.name](living.state))
        row.expected = (sum(one.found(found, living.state) for one in expected), len(expected))


def compare(entry: Entry, found: Symmetries, living: Living) -> tuple[int, int] | str:
    """Return how many of Torch-Pruning's groups were found, of those in which an exchange of two units holds."""
    theirs = exchanges(entry)
    if isinstance(theirs, str):
        return theirs
    start, groups = distinct(living.state), collections.defaultdict(list)
    for exchange in theirs:
        if living.change(exchange.apply(living.state)) < HELD:
            groups[exchange.group].append(reached(found, start, exchange.apply(start)))
    return sum(all(group) for group in groups.values()), len(groups)


def _activations_mb(model: torch.nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> float:
    """Return the memory that a backward pass in double precision keeps beside parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.untyped_storage().nbytes() * (2 if tensor.dtype == torch.float32 else 1)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(*inputs, **keywords)
    del outputs
    return sum(kept.values()) / 1e6


class _Peaks:
    """The most memory that a search held, in megabytes beyond the loaded model: in its backward passes, and else.

    Activations are kept in the backward passes alone, so that only there they may be taken off. Pages of the libraries'
    own files, which are read as their functions are first called, are not the search's.
    """

    def __init__(self) -> None:
        self.inside, self.outside = 0.0, 0.0

    def __enter__(self) -> _Peaks:
        self._before = _memory_mb("VmRSS")
        self._files = _memory_mb("RssFile")
        self._charge = Check.charge

        def charge(*args: Any, **kwargs: Any) -> None:
            self.outside = max(self.outside, self._peak())
            self._charge(*args, **kwargs)
            self.inside = max(self.inside, self._peak())

        Check.charge = charge  # type: ignore[method-assign]
        self._peak()
        return self

    def __exit__(self, *error: object) -> None:
        Check.charge = self._charge  # type: ignore[method-assign]
        self.outside = max(self.outside, self._peak())

    def _peak(self) -> float:
        """Return the most since the last call, and begin anew."""
        most = _memory_mb("VmHWM") - self._before - (_memory_mb("RssFile") - self._files)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return most


def _memory_mb(field: str) -> float:
    """Return memory of this process: what it holds (``VmRSS``), of files (``RssFile``), held at most (``VmHWM``)."""
    (line,) = [line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if field in line]
    return int(line.split()[1]) / 1e3


# --- the page ---

KINDS = {
    "permutation": "exchange",
    "sign_flip": "flip",
    "rescaling": "rescale",
    "rotation": "rotate",
    "general_linear": "GL",
    "complex": "ℂ*",
}


def page(rows: dict[str, Row]) -> str:
    """Return the tables as Markdown."""
    small = [rows[name] for name in SMALL if name in rows]
    full = [rows[name] for name in FULL if name in rows]
    series = [rows[name] for name in SERIES if name in rows]
    wrong = sum(len(row.wrong) for row in [*small, *full])
    pairs = [row.pruning for row in small if not isinstance(row.pruning, str)]
    groups = f"{sum(pair[0] for pair in pairs)} of {sum(pair[1] for pair in pairs)}"
    count = sum(sum(row.kinds.values()) for row in [*small, *full])
    hand = [row.expected for row in small if row.expected]
    return "\n".join([
        "# The zoo",
        "",
        "Made by `make bench-symmetries`: what `find_symmetries` finds in networks that people have. All are made from "
        "configurations with random values; those of the first table are small ones of their families.",
        "",
        f"- {count} symmetries in {len(small) + len(full)} networks; {wrong} of them wrong. Each was applied to the "
        "network in double precision, at parameters that keep every layer alive and other inputs than those it was "
        "found with; one that holds must be more than nothing: a random half of the same transformation moves the "
        "outputs. The check ([benchmarks/zoo/check.py](../benchmarks/zoo/check.py)) shares no code with the search.",
        f"- {groups} of Torch-Pruning's groups in which the exchange of two units truly holds were found. Its "
        "others are no symmetries: the outputs themselves, and channels of different heads.",
        f"- {sum(a for a, _ in hand)} of {sum(b for _, b in hand)} symmetries written down by hand for Llama, "
        "GPT-2, ViT, ResNet18 and ResNetV2 were found ([benchmarks/zoo/expected.py](../benchmarks/zoo/expected.py)).",
        "",
        "Seconds are of one thread of a CPU. Memory is what the process held at most beyond the loaded model, pages of "
        "the libraries' own files aside, and with what is freed given back at once. Of Torch-Pruning's groups: found / "
        "true ones. *Not followed* are operations that were not understood "
        f"([library.md](library.md#what-is-out-of-reach)). {_versions(rows.values())}",
        "",
        *_table(small, pruning=True),
        "",
        "## At the sizes that people train",
        "",
        "Two samples. In brackets: memory without the activations that the two backward passes keep, as a multiple of "
        "the model's own; in double precision, parameters alone are two.",
        "",
        *_table(full, pruning=False),
        "",
        "## Time grows with the parameters",
        "",
        "| network | parameters | seconds | seconds per million parameters | memory beside activations (own = 1) |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {r.name} | {r.parameters:,} | {r.seconds:.1f} | {r.seconds / r.parameters * 1e6:.2f} "
            f"| {_multiple(r):.1f} |"
            for r in series
        ),
        "",
    ])  # fmt: skip


def _versions(rows: Iterable[Row]) -> str:
    """Return which versions of the search the rows are of, in words."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.search or "an earlier one", []).append(row.name)
    (last, _), *others = sorted(names.items(), key=lambda item: len(item[1]), reverse=True)
    exceptions = "".join(f"; of {version}: {', '.join(those)}" for version, those in others)
    return f"Version of the search, as its files hash: {last}{exceptions}."


def _multiple(row: Row) -> float:
    """Return the memory beside activations as a multiple of the model's own."""
    return row.beside_mb / row.model_mb if row.model_mb else 0.0


def _table(rows: list[Row], pruning: bool) -> list[str]:
    head = ["network", "parameters", "seconds", "memory", *KINDS.values(), "wrong"]
    head += ["Torch-Pruning"] if pruning else []
    head += ["not followed"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 2) + "|---|"]
    for row in rows:
        memory = f"{row.peak_mb:.0f} MB" if pruning else f"{row.peak_mb:.0f} MB ({_multiple(row):.1f})"
        cells = [row.name, f"{row.parameters:,}", f"{row.seconds:.1f}", memory]
        cells += [str(row.kinds.get(kind, "")) for kind in KINDS] + [str(len(row.wrong))]
        if pruning:
            cells.append(row.pruning if isinstance(row.pruning, str) else "/".join(map(str, row.pruning)))
        cells.append(row.error or ", ".join(f"`{name}`" for name in row.unfollowed))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def main(names: list[str]) -> None:
    """Measure networks, each in a process of its own, and make the page of these and those measured before."""
    known = {**SMALL, **FULL, **SERIES}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"benchmarks.zoo: the zoo has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    rows = {row["name"]: Row(**row) for row in json.loads(JSON.read_text(encoding="utf-8"))} if JSON.exists() else {}
    torch.set_num_threads(1)
    for package in ("torchvision", "transformers", "timm", "torch_pruning"):
        importlib.import_module(package)  # once for all networks
    for name in names or known:
        row = rows[name] = in_child(functools.partial(measure, known[name]))
        row.peak_mb, row.beside_mb = in_child(functools.partial(memory, known[name]))
        print(
            f"{name:<30}{row.seconds:8.1f} s  {row.kinds}  {row.pruning}  {row.error}",
            *row.wrong,
            sep="\n  ",
            flush=True,
        )
        JSON.parent.mkdir(exist_ok=True)
        JSON.write_text(
            json.dumps([dataclasses.asdict(rows[n]) for n in known if n in rows], indent=1), encoding="utf-8"
        )
    PAGE.write_text(page(rows), encoding="utf-8")
    print(f"written to {JSON} and {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
