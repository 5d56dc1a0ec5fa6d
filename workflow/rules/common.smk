"""The configuration, the few paths, and the checks that come before any job."""

import shlex
import sys

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from mirrorsym import fingerprints, process
from mirrorsym.config import ConfigError, load
from mirrorsym.files import FileError, write_atomically
from mirrorsym.points import Plan
from mirrorsym.workflow import check_targets, python, shorten_messages

RESULTS = Path("results")
PYTHON = python(workflow.deployment_settings)
SOURCE = shlex.quote(str(Path(workflow.basedir) / "src"))
MIRRORSYM = f"PYTHONPATH={SOURCE} MIRRORSYM_PARENT=$PPID exec {shlex.quote(PYTHON)} -m mirrorsym"
FORMATS = ("pdf", "svg", "png", "csv")

try:
    CONFIG = load(Path(workflow.basedir) / "config", workflow.config_settings.overwrite_config)
    PLANS = {name: Plan.of(CONFIG, name) for name in CONFIG.experiments}
    if workflow.is_main_process:
        steps = [f"{step}_{name}" for step in ("train", "collect") for name in PLANS]
        check_targets([*CONFIG.figures, *steps, "all", "cifar10"])
except ConfigError as error:
    sys.exit(f"mirrorsym: {error}")

shorten_messages(workflow.output_settings)
FIGURES = Path("paper/figures") / CONFIG.scale


def result_file(experiment):
    return RESULTS / CONFIG.scale / f"{experiment}.nc"


def figure_files(figure):
    return [FIGURES / f"{figure}.{suffix}" for suffix in FORMATS]


def kept_up_to_date(update, *arguments):
    """Return what ``update`` returns, or end with its one sentence."""
    try:
        return update(*arguments)
    except FileError as error:
        sys.exit(f"mirrorsym: {error}")


def fingerprint_of(module):
    """The file that changes when code of the module, or of what it imports, computes something else."""
    folder = RESULTS / "fingerprints"
    if not workflow.is_main_process:
        return folder / f"{module}.txt"
    return kept_up_to_date(fingerprints.update, folder, module)


def small_file(path, content):
    """A file whose content is an input: written only when it changes, so that its time says when it did."""
    if workflow.is_main_process and not (path.is_file() and path.read_text() == content):
        kept_up_to_date(write_atomically, path, content)
    return path


onstart:
    holder = kept_up_to_date(process.hold_folder, RESULTS)
    if holder is not None:
        sys.exit(f"mirrorsym: another run (process {holder}) is going on in this folder; wait for it or stop it")
