"""What the command line asks for: targets, where the jobs run, and how a profile packs them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.cli import get_argument_parser, parse_args, parse_config
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ConfigSettings, GroupSettings

from reproduction.errors import ConfigError, nearest


def check_targets(known: Sequence[str]) -> None:
    """Refuse a target of the command line that is no file and no known rule, before Snakemake gives up on it.

    Raises:
        ConfigError: with the nearest valid name.
    """
    for target in _arguments().targets or []:
        if target not in known and not set("/.") & set(target):
            raise ConfigError(f"there is no figure or rule {target!r}{nearest(target, known)}")


def with_nulls(given: Any) -> Any:
    """Return what ``--config`` gave with its nulls: Snakemake reads every value inside a mapping or list as text."""
    if isinstance(given, dict):
        return {key: with_nulls(value) for key, value in given.items()}
    if isinstance(given, list):
        return [with_nulls(value) for value in given]
    return None if given in ("null", "Null", "NULL", "~") else given


def runs_elsewhere() -> bool:
    """Return whether the jobs may run on other machines: where a profile or an executor is given."""
    given = _arguments()
    return bool(given.executor or given.profile or given.workflow_profile)


def runs_here() -> bool:
    """Return whether the command runs jobs, and on this machine."""
    return not (_arguments().dryrun or runs_elsewhere())


def points_of_a_job(groups: GroupSettings | None, rule: str, points: int, kind: str | None = None) -> int:
    """Return how many of a rule's points one job runs, after a profile's ``groups`` and ``group-components``.

    Args:
        groups: of the profile, None where there is none.
        rule: the rule's name.
        points: how many it has.
        kind: the group of a rule that the profile does not name; the points of such rules go together.
    """
    if groups is None:
        return 1
    named = groups.overwrite_groups.get(rule)
    packed: int = groups.group_components.get(named or kind, 1)
    return min(points, packed) if named else packed


def check_packing(points: Mapping[str, int], kinds: Mapping[str, str | None], max_runtime: int) -> None:
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


def config_of(assignments: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """Return what ``--config`` and ``--configfile`` give, as Snakemake reads them.

    Args:
        assignments: of ``--config``, ``NAME=VALUE``.
        files: of ``--configfile``, later ones over earlier ones; assignments over all of them.

    Raises:
        ConfigError: if an assignment is none, or a file is missing or no YAML or JSON.
    """
    try:
        given = ConfigSettings(config=parse_config(assignments), configfiles=files)
    except (ValueError, OSError, WorkflowError) as error:
        raise ConfigError(f"--config, --configfile: {' '.join(str(error).split())}") from None
    return dict(with_nulls(given.overwrite_config))


def python(settings: Any) -> str:
    """Return the interpreter of the jobs: the conda environment's where one is used, else the one that runs this."""
    methods = settings.deployment_method if settings else ()
    return "python" if any("conda" in str(method).lower() for method in methods) else sys.executable
