"""The jobs of the workflow: ``mirrorsym job``, which the rules call."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reproduction.pipeline.caches import ignore_settings, use_caches
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point


@click.group("job", hidden=True)
@click.option("--benchmark", type=click.Path(path_type=Path), help="Write here what the job took.")
def job(benchmark: Path | None) -> None:
    """The jobs of the workflow."""
    from reproduction.pipeline.process import end_with_parent

    end_with_parent()
    use_caches(Layout())
    ignore_settings()


@job.result_callback()
def measure(result: None, benchmark: Path | None) -> None:
    """Write what a job took that succeeded."""
    from reproduction.pipeline.process import write_benchmark

    if benchmark is not None:
        write_benchmark(benchmark)


@job.command("serve")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("sets", nargs=-1)
def job_serve(folder: Path, sets: tuple[str, ...]) -> None:
    """Fork the jobs of a run from processes that have imported what they need."""
    from reproduction.__main__ import main
    from reproduction.pipeline.fork_server import serve

    serve(folder, sets, main)


@job.command("point")
@click.argument("point", metavar="JSON")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="auto")
@click.option("--checkpoint-seconds", type=float, default=300.0)
@click.option("--minutes", type=float, default=0.0, help="The time that the job asked for.")
@click.option("--cluster", is_flag=True, help="The job ends when its time is over.")
def job_point(point: str, out: Path, device: str, checkpoint_seconds: float, minutes: float, cluster: bool) -> None:
    """Run one point of the sweep."""
    from reproduction.pipeline.run import run_point

    walltime = 60 * minutes if cluster else None
    run_point(Point.from_json(point), Layout(), out, device, checkpoint_seconds, walltime)


@job.command("collect")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def job_collect(plan: Path, out: Path) -> None:
    """Put an experiment's points into one file."""
    from reproduction.pipeline.collect import collect_plan

    collect_plan(plan, Layout(), out)


@job.command("notebook")
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), required=True)
@click.option("--figures", type=click.Path(path_type=Path), required=True)
@click.option("--executed", type=click.Path(path_type=Path), required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where it runs.")
@click.option("--expect", multiple=True)
def job_notebook(
    notebook: Path, results: Path, figures: Path, executed: Path, folder: Path, expect: tuple[str, ...]
) -> None:
    """Execute a figure's notebook."""
    from reproduction.pipeline.execute import execute

    execute(notebook, results, figures, executed, list(expect), folder)


@job.command("claims")
@click.argument("claims", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--own", multiple=True, type=click.Path(path_type=Path), help="A file of claims that are not the paper's."
)
@click.option("--results", type=click.Path(path_type=Path), required=True)
@click.option("--scale", required=True)
@click.option("--experiment", "experiments", multiple=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def job_claims(
    claims: tuple[Path, ...], own: tuple[Path, ...], results: Path, scale: str, experiments: tuple[str, ...], out: Path
) -> None:
    """Judge the claims of files by the results of a scale."""
    from reproduction.analysis.verdicts import compute_file

    compute_file(claims, own, results, scale, experiments, out)


@job.command("paper")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--words", type=click.Path(path_type=Path), required=True, help="In the folder of all that it lays out.")
def job_paper(plan: Path, words: Path) -> None:
    """Make the report of the scale of a plan file: its numbers, the PDF and the page."""
    from reproduction.report.render import make_paper

    make_paper(Config.model_validate_json(plan.read_bytes()), Layout(), words.parent)


@job.command("cifar10")
@click.argument("source", metavar="JSON")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--log", type=click.Path(path_type=Path), required=True)
def job_cifar10(source: str, out: Path, log: Path) -> None:
    """Fetch, verify and unpack CIFAR-10; the progress bar is for the terminal, what went wrong for the log too."""
    from reproduction.data.cifar10 import prepare
    from reproduction.errors import UserError
    from reproduction.pipeline.config import Cifar10

    wanted = Cifar10.model_validate_json(source)
    try:
        prepare(wanted.url, wanted.checksum, wanted.label, wanted.archive, out, out.parent)
    except UserError as error:
        log.write_text(f"{error}\n", encoding="utf-8")
        sys.exit(1)
    log.write_text(f"{out}: {wanted.label}\n", encoding="utf-8")
