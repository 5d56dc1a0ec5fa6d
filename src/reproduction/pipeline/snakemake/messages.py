"""What the terminal shows: a job that starts in a line, one that failed in a sentence."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.logging import DefaultFormatter, logger

OURS = "mirrorsym: "
TRAINING = "train_"
REASON_LENGTH = 150
STOPPED = "Terminating processes on user request"
"""How Snakemake begins its line after Ctrl-C."""
REPEATED = ("RuleException", "WorkflowError:\nAt least one job", "Shutting down", "Exiting because a job")


def last_line(path: Path) -> str:
    """Return the last line of a log file that says something, or an empty text."""
    return _last_line(path).removeprefix(OURS)


def _last_line(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
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


def _named(wildcards: Mapping[str, Any]) -> str:
    """Return what a job computes, from the labels of its file's name: how many runs, or which one, and the seed."""
    counts = {name: re.fullmatch(r"(\d+)x[0-9a-f]{8}", str(label)) for name, label in wildcards.items()}
    one = [f"{name} {wildcards[name]}" for name, several in counts.items() if not several]
    runs = math.prod(int(several[1]) for several in counts.values() if several)
    if runs == 1:
        return ", ".join(one)
    same = [part for part in one[:-1] if not re.search(r" [\d.e+-]+$", part)]  # names; of numbers there are many
    return ", ".join([f"{runs} runs", *same, *one[-1:]])


class ShortMessages(DefaultFormatter):
    """Snakemake's format, with a failed job as one sentence, the last line of its log, and reasons cut to a line."""

    dryrun = False
    stopped = False

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """Return the lines of a job that starts; a dry run keeps all, since there the reasons are the answer.

        A training is named here: as a directive of its rule, Snakemake would format the name for each job of a plan.
        """
        rule = str(msg["rule_name"])
        if rule.startswith(TRAINING) and not msg["rule_msg"]:
            msg = {**msg, "rule_msg": f"{rule.removeprefix(TRAINING)}: {_named(msg['wildcards'])}"}
        reason = str(msg.get("reason") or "")
        if len(reason) > REASON_LENGTH and not self.dryrun:
            msg = {**msg, "reason": f"{reason[:REASON_LENGTH]} …"}
        return str(super().format_job_info(msg))

    def format_job_error(self, msg: dict[str, Any]) -> str:
        """Return the sentence of a failed job, or nothing where the user stopped the run: then no job failed."""
        if self.stopped:
            return ""
        logs = [Path(str(path)) for path in msg["log"] or []]
        where = f"\n  log: {logs[0]}" if logs else ""
        return f"mirrorsym: {msg['rule_name']} failed: {cause(logs, msg['rule_msg'])}{where}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, or nothing where it repeats what a failed job's sentence said."""
        text = str(super().format(record))
        if text.startswith(STOPPED):
            self.stopped = True
            return "mirrorsym: stopped as asked; the same command goes on from here"
        return "" if text.startswith(REPEATED) else text


def shorten_messages(settings: Any) -> None:
    """Let the terminal show what a person reads, unless --verbose asks for everything; the log file keeps all."""
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and not settings.verbose:
            formatter = ShortMessages(settings.quiet, settings.show_failed_logs)
            formatter.dryrun = settings.dryrun
            handler.setFormatter(formatter)
