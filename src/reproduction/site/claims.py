"""The claims as entries of a page: verdict, sentence, evidence, and links to all that it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reproduction.analysis.claims import Claim, load_all
from reproduction.analysis.derived import DERIVED
from reproduction.analysis.verdict_file import JudgedClaim, Verdicts, by_weight
from reproduction.pipeline.config import Config, module_path
from reproduction.pipeline.layout import Layout
from reproduction.report.content import entry_of, figure_of
from reproduction.report.findings import lines_of_claims
from reproduction.site.code import Code
from reproduction.site.explorer.views import VIEWS


def entries(verdicts: Verdicts, config: Config, layout: Layout, labels: dict[str, str], code: Code) -> list[Any]:
    """Return what the page lays out of each of the paper's claims, those first that the paper is about.

    Args:
        verdicts: of the scale.
        config: the configuration at that scale.
        layout: the project's paths.
        labels: what the report calls each figure.
        code: takes note of the files that claims link to.

    Raises:
        FileError: if a file is missing to which a claim links.
    """
    written = {claim.id: claim for claim in load_all(layout.paper_claims, [])[0]}
    places = lines_of_claims(layout)
    found = []
    for claim in by_weight(verdicts.claims):
        file, line = places[claim.id]
        figure = figure_of(claim, config)
        entry = entry_of(claim) | {"kind": claim.kind, "section": file.stem.replace("_", " ")}
        links = {f"rule: {file}, line {line}": code.link(file.as_posix(), line)}
        links |= _computed_by(written[claim.id], config, code)
        if figure is not None:
            links |= _of_figure(figure, labels[figure], config, code)
        links |= {f"{name}.nc": f"results/{config.scale}/{name}.nc" for name in _results(claim, config)}
        links |= {f"explorer: {view}": where for view, where in explored(claim.experiments, config, [claim.id]).items()}
        found.append(entry | {"figure": labels.get(figure or "", ""), "links": links})
    return found


def _of_figure(figure: str, label: str, config: Config, code: Code) -> dict[str, str]:
    tables = [name for name in config.figures[figure].files(figure) if name.endswith(".csv")]
    return {
        label: f"report/index.html#{figure}",
        **{name: f"figures/{config.scale}/{name}" for name in tables},
        f"notebook: {figure}": code.link(config.notebook_of(figure).as_posix()),
    }


def _results(claim: JudgedClaim, config: Config) -> list[str]:
    return [name for name in claim.experiments if name in config.experiments]


RESIDUAL = "parameterization=residual&initial_std=0.007&signal=0.02&learning_rate=0.0034"
"""Where the rank is low at the scales that run this sweep; elsewhere the nearest stop."""
AT = {
    "residual_always_full_rank": {"rank": RESIDUAL},
    "residual_removes_the_cause": {"rank": RESIDUAL},
    "rescaling_loses_plasticity": {"plasticity": "variant=rescaled"},
    "gradient_noise_restores_plasticity": {"plasticity": "variant=rescaled_gradient_noise"},
    "fixed_bias_restores_plasticity": {"plasticity": "variant=rescaled_bias"},
}
"""Where in a view a claim is seen, if not where the view opens."""


def explored(experiments: Iterable[str], config: Config, claims: Iterable[str] = ()) -> dict[str, str]:
    """Return the views of the explorer in which to turn the knobs of experiments, or of their phase diagrams.

    Args:
        experiments: their names.
        config: the configuration.
        claims: the views open where the first of them is seen that is not where they open by themselves.
    """
    known = {experiment: view for view, (_, experiment) in VIEWS.items() if experiment in config.experiments}
    views = {known.get(name) or known.get(f"{name}_phase") for name in experiments}
    places = {view: f"?{at}" for claim in reversed(list(claims)) for view, at in AT.get(claim, {}).items()}
    return {view: f"explorer/index.html#{view}{places.get(view, '')}" for view in VIEWS if view in views}


def _computed_by(claim: Claim, config: Config, code: Code) -> dict[str, str]:
    """The statistic, what it derives or the check that it reads, and the modules of its experiments."""
    statistic = claim.statistic
    arguments = statistic.arguments
    variable = arguments.get("variable")
    named = [statistic.function, (arguments.get("at") or {}).get("check")]
    derived = variable.get("name") if isinstance(variable, dict) else variable
    named.append(derived if derived in DERIVED else None)
    found = {f"code: {name}()": where for name in named if isinstance(name, str) and (where := code.function(name))}
    for name in claim.experiments:
        if name in config.experiments:
            module = module_path(config.module_of(name)).replace(".", "/")
            file = f"src/{module}.py"
            file = file if (code.root / file).is_file() else f"src/{module}/__init__.py"
            found[f"experiment: {name}"] = code.link(file)
    return found
