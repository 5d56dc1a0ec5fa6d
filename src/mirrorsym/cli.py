"""The command ``mirrorsym``: run one point by hand, look at the sweep, and the jobs of the workflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mirrorsym.config import (
    Config,
    ConfigError,
    check_grid,
    check_settings,
    json_schema,
    load,
    load_experiment,
    nearest,
)
from mirrorsym.experiments.base import Stopped, Value
from mirrorsym.files import prepare_folder
from mirrorsym.points import Point, canonical, points_of

TRY_AGAIN = 75  # EX_TEMPFAIL: stopped as asked, the same command goes on

_folder = click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="The project's folder."
)
_scale = click.option("--scale", default="quick", show_default=True, help="tiny, quick, laptop or paper.")


def main() -> None:
    """Run the command; a problem that the user can mend is one sentence and a non-zero exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        print(f"mirrorsym: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("mirrorsym: stopped as asked", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        print(f"mirrorsym: {stopped}", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except Exception as error:
        if not _is_for_the_user(error):
            raise
        print(f"mirrorsym: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code or 0)


def _is_for_the_user(error: Exception) -> bool:
    """True for the package's own errors, whose message is one sentence."""
    return type(error).__module__.startswith("mirrorsym.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Mirror symmetries and the constraints they induce: the paper's experiments, one by one or as a sweep."""
    cache = Path(os.environ.get("MIRRORSYM_CACHE", "results/.cache")).resolve()
    if cache.parent.is_dir():
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))


@cli.command("list")
@_scale
@_folder
def list_experiments(scale: str, directory: Path) -> None:
    """List the experiments, their axes and their figures."""
    config = load(directory / "config", {"scale": scale})
    for name in config.experiments:
        experiment = load_experiment(config.module_of(name))
        points = points_of(config, name)
        figures = [figure for figure, entry in config.figures.items() if name in entry.experiments]
        click.echo(f"{name}: {experiment.title}")
        click.echo(f"  axes: {', '.join([axis.name for axis in experiment.axes] + ['seed'])}")
        click.echo(f"  scale {scale}: {len(points)} jobs; figures: {', '.join(figures) or 'none'}")


@cli.command("run")
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--set", "assignments", metavar="NAME=VALUE", multiple=True, help="A grid value, a setting, or the seed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the point's netCDF file here.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where a training runs.")
@_scale
@_folder
def run(
    experiment_id: str, assignments: tuple[str, ...], out: Path | None, device: str | None, scale: str, directory: Path
) -> None:
    """Run one point of EXPERIMENT outside the workflow, print its result and, with --out, write it.

    What --set leaves open is taken from the scale, where it has one value there.
    """
    config = load(directory / "config", {"scale": scale})
    point = point_from_assignments(config, experiment_id, assignments)
    if device == "cuda" and not load_experiment(point.module).training:
        raise ConfigError(f"--device cuda: {experiment_id} is a simulation and runs on the CPU only")
    if out is not None:
        prepare_folder(out)
    from mirrorsym.runner import run_point

    seconds = 60 * config.checkpoint_minutes
    dataset = run_point(point, directory / "results", directory / "data", out, device or config.device, seconds)
    for line in summary(dataset):
        click.echo(line)
    if out is not None:
        click.echo(f"written to {out}")


def point_from_assignments(config: Config, experiment_id: str, assignments: tuple[str, ...]) -> Point:
    """Return the point that ``NAME=VALUE`` assignments describe.

    Raises:
        ConfigError: if a name is unknown, a value is not admitted, or an axis has no single value.
    """
    if experiment_id not in config.experiments:
        raise ConfigError(f"there is no experiment {experiment_id!r}{nearest(experiment_id, config.experiments)}")
    entry = config.experiments[experiment_id]
    experiment = load_experiment(config.module_of(experiment_id))
    given = dict(_split(assignment) for assignment in assignments)
    axes, fields = {axis.name: axis for axis in experiment.axes}, experiment.settings.model_fields
    for name in given:
        if name != "seed" and name not in axes and name not in fields:
            raise ConfigError(f"--set {name}: no such axis or setting{nearest(name, ['seed', *axes, *fields])}")
    where = f"--set for {experiment_id}"
    changed = {name: _parse(text) for name, text in given.items() if name in fields}
    settings: Any = check_settings(experiment, {**entry.settings, **changed}, where).model_dump(mode="json")
    grid = {name: [given[name]] if name in given else _only_value(entry.sweep, name) for name in axes}
    check_grid(experiment, grid, where)
    seed = given.get("seed", "0")
    if not (seed.isdecimal() and int(seed) < 2**32):
        raise ConfigError(f"--set seed={seed}: a seed is an integer from 0 to 2**32 - 1")
    data = config.cifar10.checksum if settings.get("dataset") == "cifar10" else None
    values = {name: canonical(axes[name], grid[name]) for name in axes}
    return Point(experiment_id, config.module_of(experiment_id), settings, data, values, int(seed))


def _split(assignment: str) -> tuple[str, str]:
    name, separator, value = assignment.partition("=")
    if not separator:
        raise ConfigError(f"--set {assignment}: write NAME=VALUE")
    return name.strip(), value.strip()


def _parse(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set …={text}: the value is not valid YAML") from None


def _only_value(sweep: list[dict[str, list[Value]]], name: str) -> list[Value]:
    values = {value for product in sweep for value in product.get(name, [])}
    if len(values) != 1:
        raise ConfigError(f"--set {name}=… is missing; the scale has {', '.join(map(str, sorted(values, key=str)))}")
    return list(values)


def summary(dataset: Any) -> list[str]:
    """Return a point's variables as lines: the value, or the smallest, median and largest of several."""
    import numpy as np

    lines = [f"{name} = {', '.join(map(str, dataset[name].values.tolist()))}" for name in dataset["status"].dims]
    for name, variable in dataset.data_vars.items():
        values = np.asarray(variable.values, dtype=float).ravel()
        values = values[np.isfinite(values)]
        unit = "" if variable.attrs["units"] == "1" else f" {variable.attrs['units']}"
        if values.size == 0:
            text = "none"
        elif values.size == 1:
            text = f"{values[0]:.6g}{unit}"
        else:
            low, middle, high = np.min(values), np.median(values), np.max(values)
            text = f"{low:.4g} … {middle:.4g} … {high:.4g}{unit} ({values.size} values)"
        lines.append(f"{name} = {text}")
    return lines


@cli.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_folder
def import_points(files: tuple[Path, ...], directory: Path) -> None:
    """Take points computed elsewhere into the store; the workflow goes on from them."""
    from mirrorsym.imports import import_files

    for line in import_files(files, directory):
        click.echo(line)


@cli.command("accept")
@click.argument("experiment_id", metavar="EXPERIMENT")
@_scale
@_folder
def accept(experiment_id: str, scale: str, directory: Path) -> None:
    """Keep the results of EXPERIMENT though its code changed: you know that its numbers did not."""
    from mirrorsym.imports import accept_results

    config = load(directory / "config", {"scale": scale})
    click.echo(accept_results(config, experiment_id, directory / "results"))


@cli.command("trace")
@click.argument("figure", metavar="FIGURE")
@_scale
@_folder
def trace_figure(figure: str, scale: str, directory: Path) -> None:
    """Check that FIGURE still shows what the result files hold."""
    from mirrorsym.trace import trace

    config = load(directory / "config", {"scale": scale})
    if figure not in config.figures:
        raise ConfigError(f"there is no figure {figure!r}{nearest(figure, config.figures)}")
    problems = trace(figure, directory / "paper" / "figures" / scale, directory / "results" / scale)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo(f"{figure}: PDF, SVG and PNG show what the result files hold")


@cli.command("results")
@_scale
@_folder
def results(scale: str, directory: Path) -> None:
    """Write docs/results.md: the trainings of a scale beside what the paper reports."""
    from mirrorsym.results_page import write_page

    click.echo(f"written to {write_page(load(directory / 'config', {'scale': scale}), directory)}")


@cli.command("plan")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where trainings run; as their resources ask.")
@click.option("--json", "as_json", is_flag=True, help="For machines: all numbers, with the seconds of each job.")
@_scale
@_folder
def plan(device: str | None, as_json: bool, scale: str, directory: Path) -> None:
    """Forecast a scale before it runs: jobs, hours, FLOPs and storage by experiment, from measured rates."""
    import json

    from mirrorsym.planning import forecast, table

    found = forecast(load(directory / "config", {"scale": scale}), directory, device)
    for line in [json.dumps(found.to_dict(), indent=1)] if as_json else table(found):
        click.echo(line)


@cli.command("calibrate")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--minutes", type=float, default=1.0, show_default=True, help="About how long to measure.")
@_folder
def calibrate(device: str, minutes: float, directory: Path) -> None:
    """Measure this machine's rates for `mirrorsym plan`, from shortened jobs."""
    from mirrorsym import calibration
    from mirrorsym.devices import gpu_count

    if device == "cuda" and not gpu_count():
        raise ConfigError("--device cuda: this machine has no GPU; use --device cpu")
    device = ("cuda" if gpu_count() else "cpu") if device == "auto" else device
    rates, path = calibration.calibrate(directory, device, minutes, click.echo)
    click.echo(f"{rates.name}: rates written to {path}")


@cli.command("status")
@click.argument("experiment_ids", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_scale
@_folder
def status(experiment_ids: tuple[str, ...], as_json: bool, scale: str, directory: Path) -> None:
    """Say what of a sweep is done, running, failed and diverged, with what the logs of failed jobs said last.

    Ends with exit code 1 where something failed.
    """
    import json

    from mirrorsym.status import status_of, table

    config = load(directory / "config", {"scale": scale})
    for name in experiment_ids:
        if name not in config.experiments:
            raise ConfigError(f"there is no experiment {name!r}{nearest(name, config.experiments)}")
    found = status_of(config, directory, experiment_ids or tuple(config.experiments))
    shown = [json.dumps([part.to_dict() for part in found], indent=1)] if as_json else table(found)
    for line in shown:
        click.echo(line)
    if any(part.failures for part in found):
        sys.exit(1)


@cli.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    click.echo(json.dumps(json_schema(), indent=1))


@cli.command("report")
@_scale
@_folder
def report(scale: str, directory: Path) -> None:
    """Say what a run made, where the figures are and how long each part took."""
    from mirrorsym.report import closing_lines

    config = load(directory / "config", {"scale": scale})
    for line in closing_lines(config, directory / "results", directory / "paper" / "figures" / scale):
        click.echo(line)


@cli.command("claims")
@_scale
@_folder
def claims_table(scale: str, directory: Path) -> None:
    """Print the verdict on each claim of the paper, with the numbers behind it."""
    from mirrorsym.verdicts import counts, read_verdicts, table

    found = read_verdicts(directory / "results" / scale / "claims.json")
    for line in [*table(found), counts(found)]:
        click.echo(line)


@cli.command("gallery")
@_scale
@_folder
def gallery(scale: str, directory: Path) -> None:
    """Remake the README's gallery from a scale's figures."""
    from mirrorsym.gallery import write_gallery

    for path in write_gallery(load(directory / "config", {"scale": scale}), directory):
        click.echo(path)


@cli.group("job", hidden=True)
def job() -> None:
    """The jobs of the workflow."""
    from mirrorsym.process import end_with_parent

    end_with_parent()


@job.command("point")
@click.argument("point", metavar="JSON")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="auto")
@click.option("--checkpoint-seconds", type=float, default=300.0)
@click.option("--minutes", type=float, default=0.0, help="The time that the job asked for.")
@click.option("--cluster", is_flag=True, help="The job ends when its time is over.")
def job_point(point: str, out: Path, device: str, checkpoint_seconds: float, minutes: float, cluster: bool) -> None:
    """Run one point of the sweep."""
    from mirrorsym.runner import run_point

    walltime = 60 * minutes if cluster else None
    run_point(Point.from_json(point), Path("results"), Path("data"), out, device, checkpoint_seconds, walltime)


@job.command("collect")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def job_collect(plan: Path, out: Path) -> None:
    """Put an experiment's points into one file."""
    from mirrorsym.collecting import collect_plan

    collect_plan(plan, Path("results"), out)


@job.command("notebook")
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), required=True)
@click.option("--figures", type=click.Path(path_type=Path), required=True)
@click.option("--executed", type=click.Path(path_type=Path), required=True)
@click.option("--expect", multiple=True)
def job_notebook(notebook: Path, results: Path, figures: Path, executed: Path, expect: tuple[str, ...]) -> None:
    """Execute a figure's notebook."""
    from mirrorsym.notebooks import execute

    execute(notebook, results, figures, executed, list(expect))


@job.command("claims")
@click.argument("claims", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), required=True)
@click.option("--scale", required=True)
@click.option("--experiment", "experiments", multiple=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def job_claims(claims: Path, results: Path, scale: str, experiments: tuple[str, ...], out: Path) -> None:
    """Judge the claims of a file by the results of a scale."""
    from mirrorsym.claims import compute_file

    compute_file(claims, results, scale, experiments, out)


@job.command("paper")
@click.argument("plan", type=click.Path(path_type=Path))
def job_paper(plan: Path) -> None:
    """Make the report of the scale of a plan file: its numbers, the PDF and the page."""
    from mirrorsym.rendering import make_paper

    make_paper(Config.model_validate_json(plan.read_text()), Path())


@job.command("cifar10")
@click.argument("source", metavar="JSON")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--log", type=click.Path(path_type=Path), required=True)
def job_cifar10(source: str, out: Path, log: Path) -> None:
    """Fetch, verify and unpack CIFAR-10; the progress bar is for the terminal, what went wrong for the log too."""
    from mirrorsym.config import Cifar10
    from mirrorsym.data.cifar10 import DataError, prepare

    wanted = Cifar10.model_validate_json(source)
    try:
        prepare(wanted.url, wanted.checksum, wanted.label, wanted.archive, out, out.parent)
    except DataError as error:
        log.write_text(f"{error}\n")
        sys.exit(1)
    log.write_text(f"{out}: {wanted.label}\n")


@job.command("points")
@click.argument("points", metavar="JSON")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
def job_points(points: str, device: str) -> None:
    """Run points one after the other and print the seconds of each, for the calibration."""
    import json

    from mirrorsym.calibration import measure_points

    click.echo(json.dumps(measure_points([Point(**point) for point in json.loads(points)], device)))


@job.command("steps")
@click.argument("sizes", metavar="JSON")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
def job_steps(sizes: str, device: str) -> None:
    """Time training steps of several sizes, for the calibration."""
    import json

    from mirrorsym.calibration import measure_steps

    click.echo(json.dumps(measure_steps([tuple(size) for size in json.loads(sizes)], device)))
