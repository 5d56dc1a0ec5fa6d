"""What to run: the one definition of the configuration, its validation, its scales and its JSON schema."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

import reproduction.experiments
from reproduction.contract import Experiment, S, Settings
from reproduction.errors import ConfigError, check_names, describe, nearest
from reproduction.files import read_yaml
from reproduction.pipeline.layout import FIGURE_FORMATS
from reproduction.pipeline.notes import Origins, note, origins

RESERVED = ("all", "cifar10", "claims", "paper")
RULES = ("collect_", "train_")
"""What the workflow calls the rules of experiments begins so."""
SCALES = ("tiny", "quick", "laptop", "overnight", "paper")
ARCHIVE_VARIABLE = "MIRRORSYM_CIFAR10_ARCHIVE"
CHECKSUM_VARIABLE = "MIRRORSYM_CIFAR10_CHECKSUM"
OUR_EXPERIMENTS = "reproduction.experiments."
Checksum = Annotated[str, BeforeValidator(str.lower), Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Cifar10(_Model):
    """Where CIFAR-10 comes from."""

    url: str = Field(description="Address of the archive in the layout of cifar-10-python.tar.gz.")
    checksum: Checksum = Field(description="md5:… or sha256:… of the archive, checked before anything is unpacked.")
    archive: Path | None = Field(None, description="A local archive, read where it lies, instead of the download.")
    labels: dict[Checksum, str] = Field({}, description="What results say of the data, by the archive's checksum.")

    @property
    def label(self) -> str:
        """The text that results carry as ``data_source``."""
        return self.labels.get(self.checksum, f"an archive of CIFAR-10's layout, {self.checksum}")


class Resources(_Model):
    """What one job asks of a cluster."""

    mem_mb: int = Field(2000, gt=0, description="Memory in MB.")
    runtime: int = Field(10, gt=0, description="Minutes.")
    gpu: int = Field(0, ge=0, le=1, description="Number of GPUs.")


class Cluster(_Model):
    """What a cluster calls its parts; what is left empty is the cluster's own choice."""

    account: str = Field("", description="Account that is charged.")
    partition: str = Field("", description="Partition of the simulations, which need CPUs only.")
    gpu_partition: str = Field("", description="Partition of the trainings; empty: the same as partition.")
    gpu_model: str = Field("", pattern=r"^[\w.]*$", description="Type of GPU, as the cluster's gres calls it.")
    max_runtime: int = Field(1440, gt=0, description="The longest time in minutes that one job may ask for.")

    def resources(self, gpu: int) -> dict[str, str]:
        """Return the resources by which Snakemake's SLURM plugin knows them, for a job with or without a GPU."""
        named = {
            "slurm_account": self.account,
            "slurm_partition": (self.gpu_partition if gpu else "") or self.partition,
            "gpu_model": self.gpu_model if gpu else "",
        }
        return {name: value for name, value in named.items() if value}


class Origin(_Model):
    """Where the settings of an experiment come from; what is in neither list is ours."""

    paper: list[str] = Field([], description="Settings that the paper gives.")
    open: list[str] = Field([], description="Settings that an experiment of the paper has, and that it leaves open.")


class ExperimentConfig(_Model):
    """One result file: an experiment with its settings and its sweep."""

    module: str = Field(
        "", description="The module, where it is not the id: one of reproduction.experiments, or any: my_lab.spins."
    )
    settings: dict[str, Any] = Field({}, description="What the sweep keeps fixed; the experiment's own fields.")
    origin: Origin = Field(
        Origin(), description="Where they come from: the paper, our choice where it leaves open, or us."
    )
    seeds: Seed | list[Seed] = Field(description="A number of seeds, 0 and up, or their list.")
    sweep: list[dict[str, list[float | str]]] = Field(
        min_length=1, description="Products of axis values, without overlap; their union is the sweep."
    )
    resources: Resources = Field(Resources(), description="What one job asks of a cluster.")

    @field_validator("seeds")
    @classmethod
    def _seeds_count_from_zero(cls, seeds: int | list[int]) -> int | list[int]:
        if (seeds if isinstance(seeds, int) else min(seeds, default=-1)) < (1 if isinstance(seeds, int) else 0):
            raise ValueError("needs at least one seed, and a seed is 0 or larger")
        return seeds

    @property
    def seed_list(self) -> list[int]:
        """The seeds in ascending order."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else sorted(set(self.seeds))


class Choice(_Model):
    """Something that the paper leaves open, and what stands for it here."""

    what: str = Field(description="What is left open.")
    chosen: str = Field(description="What was chosen, with references such as {sparsity.steps} for its numbers.")


class FigureConfig(_Model):
    """One figure: its notebook, what it reads, and its words in the report.

    Numbers in words are references: {experiment.setting}, {experiment.axis}, {experiment.seeds}, {measures.…}.
    [@key] cites paper/references.bib, [#figure] names a figure, `…` is code.
    """

    title: str = Field("", description="What the figure shows, for the gallery and the report.")
    see: str = Field("", description="One line: what to see in it.")
    caption: str = Field("", description="What stands under the figure.")
    text: str = Field("", description="What the report says beside the figure.")
    open: list[Choice] = Field([], description="What the paper leaves open, and what was chosen.")
    experiments: list[str] = Field([], description="Ids of the experiments that the notebook reads.")
    tables: list[str] = Field([], description="Tables of numbers beside ID.csv: ID_TABLE.csv, each of one kind of row.")
    notebook: Path | None = Field(None, description="The notebook, where it is not notebooks/{id}.ipynb.")

    def files(self, figure_id: str) -> list[str]:
        """Return the names of all files of the figure: pictures, and the numbers behind it."""
        numbers = [figure_id, *(f"{figure_id}_{table}" for table in self.tables)]
        return [f"{figure_id}.{suffix}" for suffix in FIGURE_FORMATS] + [f"{name}.csv" for name in numbers]


class Config(_Model):
    """The whole configuration at one scale."""

    scale: str = Field("quick", description="tiny, quick, laptop, overnight or paper.")
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$", description="auto takes a GPU where one is asked for.")
    checkpoint_minutes: float = Field(5, gt=0, description="Minutes between the checkpoints of a training.")
    cifar10: Cifar10
    cluster: Cluster = Field(Cluster(), description="Names and limits of a cluster, from cluster.yaml.")
    experiments: dict[Id, ExperimentConfig]
    figures: dict[Id, FigureConfig]
    own_claims: list[Path] = Field([], description="Files of claims that are not the paper's; judged, counted nowhere.")
    _notes: dict[str, str] = PrivateAttr(default_factory=dict)
    _paper: dict[str, Settings] = PrivateAttr(default_factory=dict)

    def module_of(self, experiment_id: str) -> str:
        """Return the module of an experiment's id; one of ``reproduction.experiments`` by its short name."""
        return (self.experiments[experiment_id].module or experiment_id).removeprefix(OUR_EXPERIMENTS)

    def settings_of(self, experiment_id: str) -> Settings:
        """Return the settings of an experiment's id, parsed.

        Raises:
            ConfigError: if a field is unknown, missing or out of range.
        """
        experiment = load_experiment(self.module_of(experiment_id))
        where = f"configuration (scale {self.scale}): experiments.{experiment_id}"
        settings: Settings = check_settings(experiment, self.experiments[experiment_id].settings, where)
        return settings

    def notebook_of(self, figure_id: str) -> Path:
        """Return the notebook that draws a figure, relative to the project."""
        return self.figures[figure_id].notebook or Path("notebooks") / f"{figure_id}.ipynb"

    def note_of(self, experiment_id: str) -> str:
        """Return how the settings of an experiment's id differ from those of ``config.yaml``, the paper's, in words."""
        return self._notes.get(experiment_id, "")

    def origins_of(self, experiment_id: str) -> Origins:
        """Return the settings of an experiment's id by where each comes from."""
        here = self.settings_of(experiment_id)
        origin = self.experiments[experiment_id].origin
        return origins(here, self._paper.get(experiment_id, here), origin.paper, origin.open)


def experiment_names() -> list[str]:
    """Return the names of the experiment modules of ``reproduction.experiments``."""
    return sorted(module.name for module in pkgutil.iter_modules(reproduction.experiments.__path__))


def module_path(module: str) -> str:
    """Return a module's full name: the short name of one in ``reproduction.experiments`` stands for it."""
    ours = f"{OUR_EXPERIMENTS}{module}"
    return ours if "." not in module and importlib.util.find_spec(ours) else module


def load_experiment(module: str) -> Experiment[Any]:
    """Return the experiment of a module.

    Raises:
        ConfigError: if there is no such module, it cannot be imported, or it exports no experiment.
    """
    path = module_path(module)
    try:
        found = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{path}.".startswith(f"{error.name}."):
            where = f"; is the folder that holds {module.partition('.')[0]} on PYTHONPATH?"
            hint = where if "." in module else nearest(module, experiment_names())
            raise ConfigError(f"there is no experiment module {module!r}{hint}") from None
        reason = " ".join(str(error).split())
        raise ConfigError(f"module {path} cannot be imported: {type(error).__name__}: {reason}") from error
    experiment = getattr(found, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"module {path} exports no EXPERIMENT; it has to be a reproduction.contract.Experiment")
    return experiment


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``override`` laid over it: mappings merge, everything else is replaced, null removes."""
    merged = dict(base)
    for key, value in override.items():
        if value is None and isinstance(merged.get(key), Mapping):
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def load(folder: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read ``config.yaml`` and the scale's file in ``folder``, lay ``overrides`` over them, and validate.

    The scale tiny takes one seed and the ends of each list of a sweep where nothing else is said.

    The environment variables MIRRORSYM_CIFAR10_ARCHIVE and MIRRORSYM_CIFAR10_CHECKSUM override both.

    Raises:
        ConfigError: with one sentence that names what is wrong, where, and what would be right.
    """
    overrides = overrides or {}
    base = read_yaml(folder / "config.yaml", dict)
    scale = str(overrides.get("scale", base.get("scale", "quick")))
    if scale not in SCALES:
        raise ConfigError(f"there is no scale {scale!r}{nearest(scale, SCALES)}; set it with --config scale=quick")
    base = {"cluster": read_yaml(folder / "cluster.yaml", dict), **base}
    here = merge(base, {"experiments": _shortened(base)}) if scale == "tiny" else base
    merged = merge(merge(here, read_yaml(folder / "scales" / f"{scale}.yaml", dict)), overrides)
    try:
        config = Config.model_validate(merge(merged, _from_environment()))
    except ValidationError as error:
        raise ConfigError(describe(error, f"configuration (scale {scale})", Config)) from None
    _check_references(config)
    config._paper.update(_of_the_paper(config, base))
    config._notes.update(_notes(config, base))
    return config


def _shortened(base: Mapping[str, Any]) -> dict[str, Any]:
    """One seed, and the first and last value of each list of a sweep, for every experiment that has such a list."""
    found = {}
    for experiment_id, entry in dict(base.get("experiments") or {}).items():
        try:
            seeds, sweep = entry["seeds"], [{name: _ends(part[name]) for name in part} for part in entry["sweep"]]
        except (TypeError, KeyError):  # the validation says what is wrong
            continue
        found[experiment_id] = {"sweep": sweep, "seeds": seeds[:1] if isinstance(seeds, list) else 1}
    return found


def _ends(values: list[Any]) -> list[Any]:
    return [values[0], values[-1]] if len(values) > 1 else values


def _of_the_paper(config: Config, base: Mapping[str, Any]) -> dict[str, Settings]:
    """The settings that ``config.yaml`` has of each experiment that is left."""
    found = {}
    for experiment_id, entry in dict(base.get("experiments") or {}).items():
        if experiment_id in config.experiments:
            experiment = load_experiment(config.module_of(experiment_id))
            where = f"config.yaml: experiments.{experiment_id}"
            found[experiment_id] = check_settings(experiment, entry.get("settings") or {}, where)
    return found


def _notes(config: Config, base: Mapping[str, Any]) -> dict[str, str]:
    """How each experiment that ``config.yaml`` has differs from there: its settings, and values that no sweep has."""
    found = {}
    for experiment_id, paper in config._paper.items():
        swept = {
            name: (values, _values_of(base["experiments"][experiment_id]["sweep"], name))
            for name, values in _axes_of(config.experiments[experiment_id].sweep).items()
        }
        beyond = {name: here for name, (here, there) in swept.items() if set(here) - set(there)}
        found[experiment_id] = note(config.settings_of(experiment_id), paper, beyond)
    return found


def _axes_of(sweep: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, tuple[Any, ...]]:
    """All values of each axis, in the order in which they come."""
    return {name: _values_of(sweep, name) for part in sweep for name in part}


def _values_of(sweep: Sequence[Mapping[str, Sequence[Any]]], name: str) -> tuple[Any, ...]:
    listed = (value for part in sweep for value in part.get(name, ()))
    # Numbers as numbers: YAML reads 1e-3 as a text.
    return tuple(dict.fromkeys(_number(value) for value in listed))


def _number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _from_environment() -> dict[str, Any]:
    found = {"archive": os.environ.get(ARCHIVE_VARIABLE), "checksum": os.environ.get(CHECKSUM_VARIABLE)}
    given = {key: value for key, value in found.items() if value}
    return {"cifar10": given} if given else {}


def _check_references(config: Config) -> None:
    """Modules, settings, axes and values, and the figures' experiments: what pydantic cannot see."""
    for figure_id in config.figures:
        if figure_id in RESERVED or figure_id.startswith(RULES):
            raise ConfigError(f"configuration: figures.{figure_id}: the workflow has a rule of that name; take another")
    for figure_id, figure in config.figures.items():
        where = f"configuration (scale {config.scale}): figures.{figure_id}.experiments: "
        check_names(figure.experiments, config.experiments, "experiment", where)
    for experiment_id, entry in config.experiments.items():
        config.settings_of(experiment_id)
        experiment = load_experiment(config.module_of(experiment_id))
        where = f"configuration (scale {config.scale}): experiments.{experiment_id}.origin: "
        check_names([*entry.origin.paper, *entry.origin.open], experiment.settings.model_fields, "setting", where)
        for number, product in enumerate(entry.sweep):
            where = f"configuration (scale {config.scale}): experiments.{experiment_id}.sweep.{number}"
            check_grid(experiment, product, where)


def check_settings(experiment: Experiment[S], settings: Mapping[str, Any], where: str) -> S:
    """Return the experiment's validated settings.

    Raises:
        ConfigError: if a field is unknown, missing or out of range.
    """
    try:
        return experiment.settings.model_validate(dict(settings))
    except ValidationError as error:
        raise ConfigError(describe(error, f"{where}.settings", experiment.settings)) from None


def check_grid(experiment: Experiment[Any], product: Mapping[str, Iterable[float | str]], where: str) -> None:
    """Check that a product names each axis of the experiment once, with values that the axis admits.

    Raises:
        ConfigError: if an axis is unknown or missing, or a value is not admitted.
    """
    names = [axis.name for axis in experiment.axes]
    check_names(product, names, "axis", f"{where}: ")
    for axis in experiment.axes:
        if axis.name not in product or not list(product[axis.name]):
            raise ConfigError(f"{where}: axis {axis.name!r} has no values; give a list")
        for value in product[axis.name]:
            if axis.choices is not None:
                if value not in axis.choices:
                    raise ConfigError(f"{where}.{axis.name}: no {value!r}{nearest(str(value), axis.choices)}")
            elif not _is_number_from(value, axis.minimum):
                raise ConfigError(f"{where}.{axis.name}: {value!r} is not a number of {axis.minimum:g} or more")


def _is_number_from(value: float | str, minimum: float) -> bool:
    try:
        return minimum <= float(value) < float("inf")
    except ValueError:
        return False


def json_schema(modules: Iterable[str] = ()) -> dict[str, Any]:
    """Return the JSON schema of ``config.yaml`` for editors, with the settings of all experiments of ours.

    Args:
        modules: further modules whose settings it shall have.
    """
    schema = Config.model_json_schema()
    models = {load_experiment(name).settings for name in {*experiment_names(), *modules}}
    for model in sorted(models, key=lambda model: model.__name__):
        if model.__name__ in schema["$defs"]:
            raise ConfigError(f"two experiments call their settings {model.__name__}; rename one of the classes")
        settings = model.model_json_schema()
        schema["$defs"] |= settings.pop("$defs", {}) | {model.__name__: {**settings, "required": []}}
    choices = [{"$ref": f"#/$defs/{name}"} for name in sorted(model.__name__ for model in models)]
    schema["$defs"]["ExperimentConfig"]["properties"]["settings"]["anyOf"] = choices
    return schema
