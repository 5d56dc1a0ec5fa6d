"""The configuration, the few paths, and the checks that come before any job."""

import os
import re
import shlex
import sys

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from reproduction.pipeline import fingerprints, fork_server, process, sources
from reproduction.analysis.claims import claimed_experiments, load_all
from reproduction.errors import ConfigError, UserError
from reproduction.pipeline.config import load, load_experiment, module_path
from reproduction.pipeline.devices import gpu_count
from reproduction.files import FileError, write_atomically
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Plan, digest
from reproduction.pipeline.snakemake import patches
from reproduction.pipeline.transfer import imported_of_other_code
from reproduction.pipeline.snakemake.command_line import (
    check_packing,
    check_targets,
    points_of_a_job,
    python,
    runs_elsewhere,
    runs_here,
    with_nulls,
)
from reproduction.pipeline.snakemake.messages import shorten_messages
from reproduction.pipeline.snakemake.patches import keep_signature
from reproduction.pipeline.snakemake.records import keep_records, restore_records

LAYOUT = Layout()
PROJECT = Path(os.path.relpath(workflow.basedir))  # in a folder that was moved the inputs have the names they had
PYTHON = python(workflow.deployment_settings)
SOURCE = shlex.quote(str(Path(workflow.basedir) / "src"))
PATHS = f"PYTHONUTF8=1 PYTHONPATH={SOURCE}${{PYTHONPATH:+:$PYTHONPATH}}"  # the user's own folders stay behind ours
START = f"{PATHS} MIRRORSYM_PARENT=$PPID exec {shlex.quote(PYTHON)}"
MIRRORSYM = f"{START} -m reproduction"
AS_IT_IS = keep_signature(lambda wildcards: MIRRORSYM)  # Snakemake would take braces in a text's path for wildcards
ENVIRONMENT = str(Path(workflow.basedir) / "envs" / "pipeline.yaml").replace("{", "{{").replace("}", "}}")
FORKS = sys.platform == "linux" and workflow.is_main_process and runs_here() and PYTHON == sys.executable


def check_pictures():
    """Refuse pictures of another archive than the configured one: points are named after it."""
    from reproduction.data.cifar10 import archive_of

    if LAYOUT.cifar10.is_file() and (found := archive_of(LAYOUT.cifar10)) != CONFIG.cifar10.checksum:
        wanted = CONFIG.cifar10.checksum
        raise ConfigError(
            f"{LAYOUT.cifar10} comes from the archive {found or '(damaged)'}, not {wanted}; delete it first"
        )


def default_group(name):
    """The group of an experiment's points where a profile does not name one; a training is a job of its own."""
    return None if load_experiment(PLANS[name].module).training else "simulations"


def notebook_of(figure):
    notebook = PROJECT / CONFIG.notebook_of(figure)
    if not notebook.is_file():
        raise ConfigError(f"configuration: figures.{figure}: {notebook} is missing; write it or remove the figure")
    return notebook


try:
    CONFIG = load(Path(workflow.basedir) / "config", with_nulls(workflow.config_settings.overwrite_config))
    PLANS = {name: Plan.of(CONFIG, name) for name in CONFIG.experiments}
    POINTS = {name: {str(LAYOUT.point(point.name)): point for point in plan.points()} for name, plan in PLANS.items()}
    if any(plan.data for plan in PLANS.values()):
        check_pictures()
    if workflow.is_main_process:
        NOTEBOOKS = {name: notebook_of(name) for name in CONFIG.figures}
        PAPER_CLAIMS = Layout(PROJECT).paper_claims
        OWN_CLAIMS = [PROJECT / path for path in CONFIG.own_claims]
        CLAIMS = [claim for claims in load_all(PAPER_CLAIMS, OWN_CLAIMS) for claim in claims]
        CLAIMED_EXPERIMENTS = claimed_experiments(CLAIMS, CONFIG.experiments)
        check_targets([*CONFIG.figures, *(f"collect_{name}" for name in PLANS), "all", "cifar10", "claims", "paper"])
        points = {f"train_{name}": len(points) for name, points in POINTS.items()}
        check_packing(points, {f"train_{name}": default_group(name) for name in PLANS}, CONFIG.cluster.max_runtime)
        if CONFIG.device == "cuda" and runs_here() and not gpu_count():
            raise ConfigError("device cuda: this machine has no GPU; use --config device=auto, or a cluster's profile")
except UserError as error:
    sys.exit(f"mirrorsym: {error}")

shorten_messages(workflow.output_settings)
patches.apply(patches.EVERYWHERE + (patches.ELSEWHERE if runs_elsewhere() else ()))
WANTED = set()  # sets of modules that jobs are forked with
CLAIMS_FILE = LAYOUT.claims(CONFIG.scale)


def forked(modules):
    """The command ``mirrorsym``; where this machine runs the jobs, as a fork of a process that has the modules."""
    if not FORKS:
        return AS_IT_IS
    WANTED.add(modules)
    client, socket = fork_server.CLIENT, fork_server.socket_of(LAYOUT.sockets, modules)
    return keep_signature(lambda wildcards: f"{START} -I -S {shlex.quote(str(client))} {socket}")


def result_file(experiment):
    return LAYOUT.result(CONFIG.scale, experiment)


def figure_files(figure):
    return [LAYOUT.figures(CONFIG.scale) / name for name in CONFIG.figures[figure].files(figure)]


def captions(figures):
    """The line under each figure in Snakemake's report, as reStructuredText."""
    lines = {name: f"{figure.title[:1].upper()}{figure.title[1:]}. {figure.see}" for name, figure in figures.items()}
    return {name: re.sub(r"([\\*`|_])", r"\\\1", line) for name, line in lines.items()}


def longest_share(name):
    """The minutes that a point may ask for where the points of one job share the longest time of the cluster."""
    packed = points_of_a_job(workflow.group_settings, f"train_{name}", len(POINTS[name]), default_group(name))
    return CONFIG.cluster.max_runtime // packed


def kept_up_to_date(update, *arguments, **named):
    """Return what ``update`` returns, or end with its one sentence."""
    try:
        return update(*arguments, **named)
    except FileError as error:
        sys.exit(f"mirrorsym: {error}")


def fingerprint_of(module):
    """The file whose name changes when code of the module, or of what it imports, computes something else."""
    folder = LAYOUT.fingerprints
    if not workflow.is_main_process:
        return fingerprints.current_file(folder, module)
    return kept_up_to_date(fingerprints.update, folder, module)


def code_of_notebook(notebook, figure):
    """The fingerprint files of what executes a notebook, what saves its figures, and what it imports itself."""
    own = fingerprints.imports_of_notebook(
        notebook, [module_path(CONFIG.module_of(name)) for name in figure.experiments]
    )
    modules = {"reproduction.pipeline.execute", "reproduction.report.plotting", *own}
    return [fingerprint_of(module) for module in sorted(modules)]


def source_files(*paths, **read):
    """Copies of files that a person writes, whose names change with their content."""
    return kept_up_to_date(sources.keep, LAYOUT.sources, PROJECT, *paths, **read)


def small_file(folder, name, content):
    """A file whose content is an input, and part of its name: a run beside another changes nothing under it."""
    path = folder / f"{name}.{digest(content, 12)}.json"
    if not fingerprints.holds(path, content):
        kept_up_to_date(write_atomically, path, content)
    return path


def plan_of_the_report():
    """The configuration as far as the report depends on it, as JSON."""
    elsewhere = {"device": True, "checkpoint_minutes": True, "cifar10": {"archive"}}
    return CONFIG.model_dump_json(exclude=elsewhere | {"experiments": {"__all__": {"resources"}}})


if workflow.is_main_process:
    kept_up_to_date(restore_records, LAYOUT.root, LAYOUT.records)


onsuccess:
    kept_up_to_date(keep_records, LAYOUT.root, LAYOUT.records)


onerror:
    kept_up_to_date(keep_records, LAYOUT.root, LAYOUT.records)


onstart:
    holder = kept_up_to_date(process.hold_folder, LAYOUT.lock)
    if holder is not None:
        sys.exit(f"mirrorsym: another run (process {holder}) is going on in this folder; wait for it or stop it")
    if FORKS:
        fork_server.start(MIRRORSYM, LAYOUT.sockets, WANTED)
