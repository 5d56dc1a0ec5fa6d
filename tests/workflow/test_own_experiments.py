"""Experiments of one's own: one that ``mirrorsym new`` puts into the project, and one that lives outside of it.

Beside what ``mirrorsym new`` writes, the outside one has a file of claims; nothing else is written by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import ROOT, Project, make_project

from reproduction.analysis.verdict_file import SUPPORTED

NAMES = ("ours", "theirs")
CLAIM = {
    "id": "it_ran",
    "statement": "It ran.",
    "experiments": ["theirs"],
    "statistic": {
        "function": "value",
        "experiment": "theirs",
        "variable": "finished",
        "reduce": {"learning_rate": "mean"},
    },
    "meaning": "share of learning rates that finish",
    "supported": ">= 0.9",
    "refuted": "<= 0.1",
    "scales": ["tiny"],
    "deterministic": True,
    "needs": "another scale",
    "change_our_mind": "another run",
}
TINY = ("--scale", "tiny")


class Own:
    """The project with both experiments, and the folder on PYTHONPATH that the outside one lives in."""

    def __init__(self, project: Project, lab: Path) -> None:
        self.project, self.lab = project, lab
        self.path = {"PYTHONPATH": os.pathsep.join([str(project.folder / "src"), str(lab)])}

    def snakemake(self, *arguments: str) -> str:
        return self.project.snakemake(*arguments, "--config", "scale=tiny", **self.path).stdout

    def mirrorsym(self, *arguments: str) -> str:
        return self.project.mirrorsym(*arguments, **self.path).stdout

    def plans_nothing(self) -> bool:
        done = self.project.snakemake("paper", "-n", "--config", "scale=tiny", **self.path)
        return "Nothing to be done" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Both experiments after one run, with the report."""
    folder = tmp_path_factory.mktemp("own")
    made = Own(make_project(folder / "project"), folder / "lab")
    made.project.configure({"experiments": {}, "figures": {}})
    shutil.copytree(ROOT / "paper", made.project.folder / "paper", ignore=shutil.ignore_patterns("figures", "quick"))
    made.mirrorsym("new", "ours")
    made.mirrorsym("new", "theirs", "--outside", str(made.lab / "my_lab"))
    (made.lab / "my_lab" / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    with open(made.project.folder / "config" / "config.yaml", "a") as file:
        file.write("own_claims: [../lab/my_lab/claims.yaml]\n")
    made.snakemake("all", "paper")
    return made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_result_and_a_figure_that_shows_it(own: Own, name: str) -> None:
    result = own.project.result(name, "tiny")
    assert dict(result.sizes) == {"learning_rate": 2, "seed": 1}  # the ends of its list, and one seed
    assert not result.status.any()
    assert "show what the result files hold" in own.mirrorsym("trace", name, *TINY)


def test_nothing_is_left_to_do(own: Own) -> None:
    assert own.plans_nothing()


def test_a_change_outside_makes_its_own_experiment_stale_and_a_comment_does_not(own: Own) -> None:
    module = own.lab / "my_lab" / "theirs.py"
    before = module.read_text()
    module.write_text(f"# a comment\n{before}")
    assert own.plans_nothing()
    module.write_text(f"{before}\nCHANGED = 1\n")
    planned = own.snakemake("-n")
    assert "train_theirs" in planned
    assert "train_ours" not in planned
    module.write_text(before)


def test_every_command_knows_both(own: Own) -> None:
    for command in ("list", "plan", "status", "summary"):
        said = own.mirrorsym(command, *TINY)
        assert command == "summary" or all(name in said for name in NAMES), said


def test_an_own_claim_is_judged_and_counted_apart(own: Own) -> None:
    content = json.loads((own.project.folder / "results/tiny/claims.json").read_text())
    assert [(claim["id"], claim["verdict"]) for claim in content["own"]] == [("it_ran", SUPPORTED)]
    assert not content["claims"]
    assert not any(content["verdicts"].values())
    printed = own.mirrorsym("claims", *TINY).splitlines()
    assert printed.index("supported: it_ran (own)") > printed.index("own claims, not counted:")


def test_the_report_has_the_figures_with_their_words_and_the_claim(own: Own) -> None:
    page = (own.project.folder / "paper/tiny/index.html").read_text()
    assert page.count("Noise makes a mirror attract") >= len(NAMES)
    assert "after 2,000 steps of stochastic gradient descent" in page
    assert 'id="claim-it_ran"' in page


def test_a_profile_that_does_not_name_them_packs_them_all_the_same(own: Own) -> None:
    planned = own.snakemake("-n", "--forceall", "--profile", "profiles/slurm")
    assert "Group job simulations" in planned


def test_the_schema_has_the_settings_of_both(own: Own) -> None:
    schema = (own.project.folder / "config" / "schema.json").read_text()
    assert own.mirrorsym("schema") == schema
    assert {"OursSettings", "TheirsSettings"} <= set(json.loads(schema)["$defs"])


def test_what_was_written_passes_its_own_tests_and_the_checks(own: Own) -> None:
    written = [own.project.folder / "tests/reproduction/test_ours.py", own.lab / "my_lab/test_theirs.py"]
    modules = [own.project.folder / "src/reproduction/experiments/ours.py", own.lab / "my_lab/theirs.py"]
    notebooks = [own.project.folder / "notebooks/ours.ipynb", own.lab / "my_lab/theirs.ipynb"]
    for command in (
        ["pytest", "-q", "-p", "no:cacheprovider", *written],
        ["ruff", "check", written[0], modules[0]],
        ["ruff", "format", "--check", written[0], modules[0]],
        ["mypy", "--no-incremental", "--follow-imports", "skip", modules[0]],
        ["nbstripout", "--verify", *notebooks],
    ):
        environment = own.project.environment(own.path)
        done = subprocess.run(
            [sys.executable, "-m", *map(str, command)], cwd=own.project.folder, env=environment, capture_output=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.mark.timeout(600)
def test_tests_that_enumerate_experiments_take_a_new_one(tmp_path: Path) -> None:
    """In the real project: its tests of the profile, of the words, of the scales' trainings."""
    project = make_project(tmp_path / "project")
    for part in ("config", "claims", "tests", "paper", "benchmarks"):
        shutil.rmtree(project.folder / part, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", "figures")
        shutil.copytree(ROOT / part, project.folder / part, ignore=ignored)
    before = (project.folder / "config" / "config.yaml").read_text()
    project.mirrorsym("new", "ours")
    after = (project.folder / "config" / "config.yaml").read_text()
    kept = iter(after.splitlines())
    assert all(line in kept for line in before.splitlines())  # nothing is lost, comments among it, nor moved
    tests = [
        "tests/reproduction/test_cluster_profile.py",
        "tests/reproduction/test_costs.py",
        "tests/reproduction/test_report.py",
        "tests/reproduction/test_training.py",
    ]
    chosen = "profile or packed or whole_experiment or words or citation or no_scale or came_with"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", chosen]
    environment = project.environment({})
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
