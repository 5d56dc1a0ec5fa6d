"""The command ``mirrorsym``: run one point by hand, look at the sweep, judge and trace what came out."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from reproduction.cli.jobs import job
from reproduction.contract import Stopped, Value
from reproduction.errors import ConfigError, UserError, check_names, nearest
from reproduction.files import prepare_folder
from reproduction.pipeline.caches import use_caches
from reproduction.pipeline.config import Config, check_grid, check_settings, load, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, canonical, data_of, points_of
from reproduction.pipeline.sources import as_written

TRY_AGAIN = 75  # EX_TEMPFAIL: stopped as asked, the same command goes on

_folder = click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="The project's folder."
)


class _Command(click.Command):
    """A command whose ``--config`` takes all assignments that follow, as Snakemake's does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each assignment after ``--config`` an option of its own."""
        return super().parse_args(ctx, [*_each_assigned(args)])


def _each_assigned(words: list[str]) -> Iterator[str]:
    follows = False
    for before, word in zip(["", *words], words, strict=False):
        assigned = "=" in word and not word.startswith("-")
        if assigned and follows and before != "--config":
            yield "--config"
        follows = word == "--config" or (follows and assigned)
        yield word


def _of_scale(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a configuration and a folder, as the configuration and the paths that they name."""

    @click.option("--scale", help="tiny, quick, laptop, overnight or paper; what is configured, if nothing is said.")
    @click.option("--config", "changes", metavar="NAME=VALUE", multiple=True, help="As for snakemake.")
    @click.option(
        "--configfile",
        "files",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        help="As for snakemake.",
    )
    @_folder
    @functools.wraps(command)
    def configured(
        scale: str | None, changes: tuple[str, ...], files: tuple[Path, ...], directory: Path, **arguments: Any
    ) -> None:
        layout = Layout(directory)
        use_caches(layout)
        command(load(layout.config, _overrides(scale, changes, files)), layout, **arguments)

    return configured


def _overrides(scale: str | None, changes: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """Return what is laid over the configuration: files, then single values, then the scale."""
    given = {"scale": scale} if scale else {}
    if not (changes or files):
        return given
    from reproduction.pipeline.snakemake.command_line import config_of  # a second, for Snakemake's own reading

    return config_of(changes, files) | given


def _say(lines: Iterable[object]) -> None:
    for line in lines:
        click.echo(line)


def main() -> None:
    """Run the command; a problem that the user can mend is one sentence and a non-zero exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # where the locale has no ≥
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        print(f"mirrorsym: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        if isinstance(stop.__cause__, EOFError):  # click takes the end of any file for the end of what is typed
            raise stop.__cause__ from None
        print("mirrorsym: stopped as asked", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        print(f"mirrorsym: {stopped}", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except UserError as error:
        print(f"mirrorsym: {as_written(str(error), Layout().sources)}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code or 0)


class _Commands(click.Group):
    command_class = _Command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Mirror symmetries and the constraints they induce: the paper's experiments, one by one or as a sweep."""


@cli.command("list")
@_of_scale
def list_experiments(config: Config, layout: Layout) -> None:
    """List the experiments, their axes and their figures."""
    for name in config.experiments:
        experiment = load_experiment(config.module_of(name))
        points = points_of(config, name)
        figures = [figure for figure, entry in config.figures.items() if name in entry.experiments]
        click.echo(f"{name}: {experiment.title}")
        click.echo(f"  axes: {', '.join([axis.name for axis in experiment.axes] + ['seed'])}")
        click.echo(f"  scale {config.scale}: {len(points)} jobs; figures: {', '.join(figures) or 'none'}")


@cli.command("run")
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--set", "assignments", metavar="NAME=VALUE", multiple=True, help="A grid value, a setting, or the seed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the point's netCDF file here.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where a training runs.")
@_of_scale
def run(
    config: Config,
    layout: Layout,
    experiment_id: str,
    assignments: tuple[str, ...],
    out: Path | None,
    device: str | None,
) -> None:
    """Run one point of EXPERIMENT outside the workflow, print its result and, with --out, write it.

    What --set leaves open is taken from the scale, where it has one value there.
    """
    point = point_from_assignments(config, experiment_id, assignments)
    if device == "cuda" and not load_experiment(point.module).training:
        raise ConfigError(f"--device cuda: {experiment_id} is a simulation and runs on the CPU only")
    if out is not None:
        prepare_folder(out)
    from reproduction.pipeline.run import run_point

    _say(summary(run_point(point, layout, out, device or config.device, 60 * config.checkpoint_minutes)))
    if out is not None:
        click.echo(f"written to {out}")


def point_from_assignments(config: Config, experiment_id: str, assignments: tuple[str, ...]) -> Point:
    """Return the point that ``NAME=VALUE`` assignments describe.

    Raises:
        ConfigError: if a name is unknown, a value is not admitted, or an axis has no single value.
    """
    check_names([experiment_id], config.experiments, "experiment")
    entry = config.experiments[experiment_id]
    experiment = load_experiment(config.module_of(experiment_id))
    given = dict(_split(assignment) for assignment in assignments)
    axes, fields = {axis.name: axis for axis in experiment.axes}, experiment.settings.model_fields
    for name in given:
        if name != "seed" and name not in axes and name not in fields:
            raise ConfigError(f"--set {name}: no such axis or setting{nearest(name, ['seed', *axes, *fields])}")
    where = f"--set for {experiment_id}"
    changed = {name: _parse(text) for name, text in given.items() if name in fields}
    settings = check_settings(experiment, {**entry.settings, **changed}, where)
    grid = {name: [given[name]] if name in given else _only_value(entry.sweep, name) for name in axes}
    check_grid(experiment, grid, where)
    seed = given.get("seed", "0")
    if not (seed.isdecimal() and int(seed) < 2**32):
        raise ConfigError(f"--set seed={seed}: a seed is an integer from 0 to 2**32 - 1")
    values = {name: canonical(axes[name], grid[name]) for name in axes}
    return Point(experiment_id, config.module_of(experiment_id), settings, data_of(config, settings), values, int(seed))


def _split(assignment: str, option: str = "--set") -> tuple[str, str]:
    name, separator, value = assignment.partition("=")
    if not separator:
        raise ConfigError(f"{option} {assignment}: write NAME=VALUE")
    return name.strip(), value.strip()


def _parse(text: str, where: str = "--set …=") -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{where}{text}: the value is not valid YAML") from None


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
@click.option("--accept", is_flag=True, help="Also of other code: you know that the difference touches no number.")
@_folder
def import_points(files: tuple[Path, ...], accept: bool, directory: Path) -> None:
    """Take points computed elsewhere into the store; the workflow goes on from them."""
    from reproduction.pipeline.transfer import import_files

    _say(import_files(files, Layout(directory), accept))


@cli.command("pack")
@click.argument("out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@_of_scale
def pack_results(config: Config, layout: Layout, out: Path) -> None:
    """Write FILE, a zip archive of a scale's results, figures and report, for mirrorsym fetch in another clone."""
    from reproduction.pipeline.pack import pack

    _say(pack(config, layout, out))


@cli.command("fetch")
@click.argument("source", metavar="FILE|URL")
@click.option("--checksum", metavar="sha256:…", help="Of the archive, checked before it is opened.")
@_folder
def fetch_results(source: str, checksum: str | None, directory: Path) -> None:
    """Unpack an archive of mirrorsym pack into this clone, verified before anything of it is put into place."""
    from reproduction.pipeline.pack import fetch

    _say(fetch(source, Layout(directory), checksum))


@cli.command("accept")
@click.argument("experiment_ids", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All experiments of the scale.")
@_of_scale
def accept(config: Config, layout: Layout, experiment_ids: tuple[str, ...], everything: bool) -> None:
    """Keep results though the code that made them changed, or is called otherwise: you know that no number did."""
    from reproduction.pipeline.transfer import accept_results

    if everything == bool(experiment_ids):
        raise ConfigError("name the experiments whose results to accept, or give --all")
    _say(accept_results(config, experiment_ids or tuple(config.experiments), layout))


@cli.command("trace")
@click.argument("figure", metavar="FIGURE")
@_of_scale
def trace_figure(config: Config, layout: Layout, figure: str) -> None:
    """Check that FIGURE still shows what the result files hold."""
    from reproduction.report.trace import trace

    check_names([figure], config.figures, "figure")
    from reproduction.pipeline.outdated import other_sweeps

    problems = trace(figure, layout.figures(config.scale), layout.scale(config.scale))
    problems += other_sweeps(config, layout, config.figures[figure].experiments)
    _say(problems)
    if problems:
        sys.exit(1)
    click.echo(f"{figure}: PDF, SVG and PNG show what the result files hold")


@cli.command("results")
@_folder
def results(directory: Path) -> None:
    """Write docs/results.md: the trainings on CIFAR-10, scale by scale, beside what the paper reports."""
    from reproduction.report.results_page import write_page

    use_caches(Layout(directory))
    click.echo(f"written to {write_page(Layout(directory))}")


@cli.command("plan")
@click.argument("targets", metavar="[FIGURE]...", nargs=-1)
@click.option("--cores", metavar="N", default="all", show_default=True, help="Of this machine, as for snakemake.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where trainings run; as their resources ask.")
@click.option("--json", "as_json", is_flag=True, help="For machines: all numbers, with the seconds of each job.")
@_of_scale
def plan(
    config: Config, layout: Layout, targets: tuple[str, ...], cores: str, device: str | None, as_json: bool
) -> None:
    """Forecast a scale, or what FIGURES need, before it runs: jobs, hours, FLOPs, storage, and time by the clock.

    FIGURES are targets as snakemake takes them: figures, claims, paper or collect_EXPERIMENT.
    """
    import json

    from reproduction.pipeline.costs import forecast, table

    found = forecast(config, layout, device, list(targets), _number_of_cores(cores))
    for line in [json.dumps(found.to_dict(), indent=1)] if as_json else table(found):
        click.echo(line)


def _number_of_cores(text: str) -> int:
    if text == "all":
        return len(os.sched_getaffinity(0))
    if not (text.isdecimal() and int(text)):
        raise ConfigError(f"--cores {text}: give a number of cores from 1, or all")
    return int(text)


@cli.command("measured")
@_of_scale
def measured(config: Config, layout: Layout) -> None:
    """Keep what the jobs of a scale took that have run here in config/measured.json, for plans before a first run."""
    from reproduction.pipeline.measured import write_measured

    found = write_measured(config, layout)
    click.echo(f"{found.processor}, {found.date}: what jobs took is written to {layout.measured}")


@cli.command("status")
@click.argument("experiment_ids", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--watch", "watching", is_flag=True, help="Look again and again, with the time left, until the run ends.")
@_of_scale
def status(config: Config, layout: Layout, experiment_ids: tuple[str, ...], as_json: bool, watching: bool) -> None:
    """Say what of a sweep is done, running, failed and diverged, with what the logs of failed jobs said last.

    Ends with exit code 1 where something failed.
    """
    import json
    from dataclasses import asdict

    from reproduction.pipeline.outdated import other_sweeps
    from reproduction.pipeline.status import status_of, table
    from reproduction.pipeline.transfer import imported_of_other_code

    check_names(experiment_ids, config.experiments, "experiment")
    names = experiment_ids or tuple(config.experiments)
    if watching:
        from reproduction.pipeline.watch import watch

        watch(config, layout, names, click.echo, sys.stdout.isatty())
    found = status_of(config, layout, names)
    others = other_sweeps(config, layout, names) + imported_of_other_code(layout, config, names)
    _say([json.dumps([asdict(part) for part in found], indent=1)] if as_json else [*table(found), *others])
    if any(part.failures for part in found):
        sys.exit(1)


@cli.command("schema")
@_folder
def schema(directory: Path) -> None:
    """Print the JSON schema of the configuration."""
    from reproduction.cli.new import schema_text

    click.echo(schema_text(Layout(directory)), nl=False)


@cli.command("new")
@click.argument("name")
@click.option(
    "--outside", type=click.Path(file_okay=False, path_type=Path), help="Folder of the package it shall be in."
)
@_folder
def new(name: str, outside: Path | None, directory: Path) -> None:
    """Write an experiment NAME that runs, to be changed: module, test, block of config with its figure, notebook."""
    from reproduction.cli.new import write_experiment

    _say(write_experiment(name, Layout(directory), outside))
    if outside is not None:
        click.echo("put the folder that holds the package on PYTHONPATH")
    click.echo(f"make its figure with: snakemake --cores all {name}")


@cli.command("summary")
@_of_scale
def summary_of_a_run(config: Config, layout: Layout) -> None:
    """Say what a run made, where the figures are and how long each part took."""
    from reproduction.report.closing import closing_lines

    _say(closing_lines(config, layout))


@cli.command("claims")
@_of_scale
def claims_table(config: Config, layout: Layout) -> None:
    """Print the verdict on each claim of the paper, with the numbers behind it, and on own claims."""
    from reproduction.analysis.verdict_file import listing, read_verdicts
    from reproduction.pipeline.outdated import changed_since, other_sweeps

    found = read_verdicts(path := layout.claims(config.scale))
    old = changed_since(found.contents, layout, config.scale, path)
    old += other_sweeps(config, layout, [name for name in found.sources if name in config.experiments])
    _say([*listing(found), *old])


@cli.command("open")
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.argument("variables", metavar="[VARIABLE]...", nargs=-1)
@click.option("--path", "only_path", is_flag=True, help="Print where the file lies, and nothing else.")
@_of_scale
def open_result(
    config: Config, layout: Layout, experiment_id: str, variables: tuple[str, ...], only_path: bool
) -> None:
    """Show the result file of EXPERIMENT: what is in it or, with VARIABLES, these as a table in CSV.

    In Python: reproduction.results has path, dataset and frame.
    """
    from reproduction import results

    place = config.scale, layout.root
    if only_path:
        click.echo(results.path(experiment_id, *place))
    elif variables:
        table = results.frame(experiment_id, *variables, scale=config.scale, directory=layout.root)
        click.echo(table.to_csv(index=False, float_format="%.9g"), nl=False)
    else:
        click.echo(results.dataset(experiment_id, *place))


@cli.command("findings")
@_of_scale
def findings(config: Config, layout: Layout) -> None:
    """Remake docs/findings.md and the README's beginning: what was found, in five sentences with their numbers."""
    from reproduction.report.findings import write_findings

    _say(write_findings(config, layout))


@cli.command("site")
@click.option("--linkcheck", is_flag=True, help="Only ask whether the addresses that lead elsewhere answer.")
@_of_scale
def site(config: Config, layout: Layout, linkcheck: bool) -> None:
    """Build the page of a scale from what was made: one folder that opens from disk and needs no network."""
    from reproduction.site.build import build

    made = build(config, layout, "linkcheck" if linkcheck else "html")
    click.echo("all addresses answer" if linkcheck else f"the page is {made / 'index.html'}")


@cli.command("gallery")
@_of_scale
def gallery(config: Config, layout: Layout) -> None:
    """Remake the README's gallery from a scale's figures."""
    from reproduction.report.gallery import write_gallery

    _say(write_gallery(config, layout))


cli.add_command(job)
