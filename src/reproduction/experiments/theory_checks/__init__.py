"""The paper's theorems, corollaries and formulas on random instances: how far each is from what it says.

The checks are the functions of this package's modules, one for each statement, under the names of the statements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from reproduction.contract import Axis, Context, Experiment, Grid, Settings, Variable
from reproduction.streams import stream

if TYPE_CHECKING:
    import xarray as xr

    from reproduction.experiments.theory_checks.violations import Violation

NAMES = (
    *("definition2", "fig1_matrix", "fig1_projection"),
    *("theorem1_part1", "theorem1_part2", "footnote1", "hessian_near_mirror", "theorem1_part3"),
    *("theorem1_part3_bounded", "theorem1_part4", "theorem1_part4_proof", "theorem1_part4_models", "local_minimum"),
    *("bounded_space", "assumption1_bounded_space", "assumption1_models", "decay_sparse", "sparsity_unique"),
    *("corollary1", "optimizer_momentum", "optimizer_adam", "optimizer_adam_no_momentum", "equivariance"),
    *("stationary_point", "bias_removes_symmetry", "bias_translates", "adam_with_momentum"),
    *("noise_removes_conditions", "low_rank_stays", "rounding"),
    *("eq2", "eq2_near_zero", "eq2_two_mirrors", "eq3", "eq14", "eq14_background", "eq4"),
    *("independent_dynamics", "assumption2", "linear_coupling", "escape_rate", "escape_rate_limit", "decay_shift"),
    *("gd_attraction", "gd_attraction_small_rate", "critical_decay", "lyapunov_large_rate"),
    *("eq5_expansion", "eq5_condition", "eq5_denominator", "theorem5", "diagonal_approximation", "fisher"),
    *("noise_attracts_rank_one", "noise_attracts_in_sum"),
    *(
        "eq6",
        "eq6_no_symmetry",
        "lasso",
        "group_penalty",
        "dcs_faithful",
        "dcs_stationary",
        "dcs_favored",
        "dcs_favored_bounded",
    ),
    *("theorem2_part1", "theorem2_part2", "theorem2_part2_bounded", "theorem2_proof", "eq37", "positive_rescaling"),
    *("rescaling_mirrors", "theorem3_part1", "theorem3_part2", "theorem3_part2_bounded", "theorem3_proof"),
    *("double_rotation_favored", "theorem3_low_rank", "theorem3_rows", "footnote3", "footnote3_only"),
    *("theorem4_part1", "theorem4_part2", "theorem4_part2_bounded", "filters", "eq57", "eq11", "footnote5"),
    *(
        "kinks",
        "wide_reflections",
        "heavy_tails",
        "epochs",
        "sum_beyond",
        "trained_escape",
        "step_with_decay",
        "long_background",
        "without_replacement",
    ),
    *("softmax_fisher", "vector_inputs", "batch_normalization", "other_parameters"),
)


class TheoryChecksSettings(Settings):
    """Nothing is left to choose: the instances are drawn from the seed."""


def checks() -> dict[str, Callable[[np.random.Generator], Violation]]:
    """Return the checks by their names, in the order of their modules."""
    from reproduction.experiments.theory_checks import (
        assumptions,
        challenges,
        constraining,
        dynamics,
        main_theorem,
        optimizers,
        symmetries,
    )

    modules = (main_theorem, assumptions, optimizers, dynamics, constraining, symmetries, challenges)
    return {check.__name__: check for module in modules for check in module.CHECKS}


def run(settings: TheoryChecksSettings, grid: Grid, seed: int, context: Context) -> xr.Dataset:
    """Run checks on instances of their own.

    Args:
        settings: nothing.
        grid: values of ``check``.
        seed: of the instances; each check has a stream of its own.
        context: its ``progress`` is called once a check.

    Returns:
        The violations with dimensions (check, seed), NaN where a statement has no mended form, control or edge.
    """
    names, known = [str(name) for name in grid["check"]], checks()
    from reproduction.experiments.theory_checks.violations import instances

    found = []
    for done, name in enumerate(names, start=1):
        found.append(known[name](stream("theory_checks", seed, name)))
        context.progress(done, len(names), {})
    values = {
        "violation": [one.printed for one in found],
        "violation_mended": [one.mended for one in found],
        "violation_control": [one.control for one in found],
        "violation_edge": [one.edge for one in found],
        "violation_registered": [one.registered for one in found],
        "instances": [instances(one.printed) for one in found],
        "instances_mended": [instances(one.mended) for one in found],
    }
    return EXPERIMENT.dataset(grid, seed, values, {})


EXPERIMENT = Experiment(
    name="theory_checks",
    title="The paper's theorems and formulas on random instances",
    settings=TheoryChecksSettings,
    axes=(Axis("check", "statement of the paper", choices=NAMES),),
    variables={
        "violation": Variable((), "violation of the statement as printed, 0 where it holds"),
        "violation_mended": Variable((), "violation of the statement with the conditions or factors that it needs"),
        "violation_control": Variable((), "the same measure where the statement cannot hold"),
        "violation_edge": Variable((), "the same measure at a degenerate or extreme edge of the statement's words"),
        "violation_registered": Variable((), "the measure that was registered first, where it was amended"),
        "instances": Variable((), "instances of which the violation is a fraction"),
        "instances_mended": Variable((), "instances of which the violation of the mended statement is a fraction"),
    },
    coords={},
    run=run,
)
