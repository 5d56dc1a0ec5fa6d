"""What the Snakefile needs of Snakemake itself: what the command line asks for, and errors in one sentence."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.cli import get_argument_parser, parse_args
from snakemake.logging import DefaultFormatter, logger
from snakemake.settings.types import GroupSettings

from reproduction.errors import ConfigError, nearest
from reproduction.pipeline.snakemake.patches import points_of_a_job

OURS = "mirrorsym: "
TRAINING = "train_"
REASON_LENGTH = 150
REPEATED = ("RuleException", "WorkflowError:\nAt least one job", "Shutting down", "Exiting because a job")


def check_targets(known: Sequence[str]) -> None:
    """Refuse a target of the command line that is no file and no known rule, before Snakemake gives up on it.

    Raises:
        ConfigError: with the nearest valid name.
    """
    for target in _arguments().targets or []:
        if target not in known and not set("/.") & set(target):
            raise ConfigError(f"there is no figure or rule {target!r}{nearest(target, known)}")


def runs_elsewhere() -> bool:
    """Return whether the jobs may run on other machines: where a profile or an executor is given."""
    given = _arguments()
    return bool(given.executor or given.profile or given.workflow_profile)


def runs_here() -> bool:
    """Return whether the command runs jobs, and on this machine."""
    return not (_arguments().dryrun or runs_elsewhere())


def check_packing(points: Mapping[str, int], kinds: Mapping[str, str], max_runtime: int) -> None:
    """Refuse a profile that packs more points into a job than the job may ask minutes for, one for each at least.

    Snakemake knows the groups of its profiles after the Snakefile is read; an error would then be one of a rule's.

    Args:
        points: how many points each rule has.
        kinds: the group of each rule where a profile does not name it.
        max_runtime: minutes, the longest that one job may ask for.

    Raises:
        ConfigError: with the rule.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # it names the profiles, and Snakemake did so before
        given = parse_args(sys.argv[1:])[1]
    groups = GroupSettings(overwrite_groups=given.groups, group_components=given.group_components)
    for rule, count in points.items():
        together = points_of_a_job(groups, rule, count, kinds[rule])
        if together > max_runtime:
            what = f"{together} points of {rule} go as one job, which asks for a minute for each of them"
            limit = f"cluster.max_runtime is {max_runtime}"
            raise ConfigError(f"{what}, and {limit}: raise it, or lower the profile's group-components")


def _arguments() -> Any:
    return get_argument_parser().parse_known_args(sys.argv[1:])[0]


def python(settings: Any) -> str:
    """Return the interpreter of the jobs: the conda environment's where one is used, else the one that runs this."""
    methods = settings.deployment_method if settings else ()
    return "python" if any("conda" in str(method).lower() for method in methods) else sys.executable


def keep_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its signature worked out: Snakemake asks for it several times for each job (PEP 362)."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def last_line(path: Path) -> str:
    """Return the last line of a log file that says something, or an empty text."""
    return _last_line(path).removeprefix(OURS)


def _last_line(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")


def cause(logs: Sequence[Path], scheduler: str | None) -> str:
    """Return why a job failed: its own sentence, else the scheduler's, else the last that it wrote."""
    written = [line for line in map(_last_line, logs) if line]
    own = [line.removeprefix(OURS) for line in written if line.startswith(OURS)]
    first_line = (scheduler or "").strip().partition("\n")[0]
    full = shutil.disk_usage(".").free < 2**20
    silent = "the disk is full; free some space and run the same command again" if full else "it left no message"
    return next(filter(None, [*own, first_line, *written]), silent)


class ShortMessages(DefaultFormatter):
    """Snakemake's format, with a failed job as one sentence, the last line of its log, and reasons cut to a line."""

    dryrun = False

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """Return the lines of a job that starts; a dry run keeps all, since there the reasons are the answer.

        A training is named here: as a directive of its rule, Snakemake would format the name for each job of a plan.
        """
        rule = str(msg["rule_name"])
        if rule.startswith(TRAINING) and not msg["rule_msg"]:
            values = " ".join(map(str, msg["wildcards"].values()))
            msg = {**msg, "rule_msg": f"{rule.removeprefix(TRAINING)}: {values}"}
        reason = str(msg.get("reason") or "")
        if len(reason) > REASON_LENGTH and not self.dryrun:
            msg = {**msg, "reason": f"{reason[:REASON_LENGTH]} …"}
        return str(super().format_job_info(msg))

    def format_job_error(self, msg: dict[str, Any]) -> str:
        """Return the sentence of a failed job."""
        logs = [Path(str(path)) for path in msg["log"] or []]
        where = f"\n  log: {logs[0]}" if logs else ""
        return f"mirrorsym: {msg['rule_name']} failed: {cause(logs, msg['rule_msg'])}{where}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, or nothing where it repeats what a failed job's sentence said."""
        text = str(super().format(record))
        return "" if text.startswith(REPEATED) else text


def shorten_messages(settings: Any) -> None:
    """Let the terminal show what a person reads, unless --verbose asks for everything; the log file keeps all."""
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and not settings.verbose:
            formatter = ShortMessages(settings.quiet, settings.show_failed_logs)
            formatter.dryrun = settings.dryrun
            handler.setFormatter(formatter)
