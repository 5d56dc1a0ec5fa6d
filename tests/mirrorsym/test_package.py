"""What the package says of itself: its public names, what importing it costs, and the example of its docstring."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import mirrorsym


@pytest.mark.parametrize("name", mirrorsym.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(mirrorsym, name).__doc__
    assert name in dir(mirrorsym)


SOURCE = re.compile(r"Theorem|Definition|Section|Eq\.|Figs?\.")
SHAPE = re.compile(r"shape|vector|matri|bases|parameters off")


@pytest.mark.parametrize("name", mirrorsym.__all__)
def test_every_public_name_says_what_it_takes_and_raises_and_where_the_paper_has_it(name: str) -> None:
    thing = getattr(mirrorsym, name)
    text = inspect.getdoc(thing) or ""
    assert SOURCE.search(text), "where does the paper have it?"
    arguments = re.split(r"^ +(?=\*{0,2}\w+: )", text.partition("Args:\n")[2].partition("\n\n")[0], flags=re.MULTILINE)
    described = {argument.partition(":")[0].strip("* "): argument for argument in arguments}
    for argument in inspect.signature(thing).parameters.values():
        assert argument.name in described
        if re.search(r"Tensor|Array", str(argument.annotation)):
            assert SHAPE.search(described[argument.name]), f"which shape has {argument.name}?"
    raises = re.search(r"^ +raise \w", inspect.getsource(thing), re.MULTILINE) if inspect.isfunction(thing) else None
    assert not raises or "Raises:" in text
    for method, function in inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else ():
        of_torch = not function.__module__.startswith("mirrorsym") or method == "forward"
        assert method.startswith("_") or of_torch or inspect.getdoc(function), f"{method} has no docstring"


def test_a_wrong_name_is_an_error_that_lists_the_right_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'find_symmetry'; it has .*find_symmetries"):
        _ = mirrorsym.find_symmetry


def test_type_checkers_see_the_names_that_are_there() -> None:
    source = Path(mirrorsym.__file__).read_text(encoding="utf-8")
    for name, module in mirrorsym._MODULES.items():
        assert f"from mirrorsym.{module} import {name} as {name}" in source


def test_the_docstring_groups_all_names_as_the_page_of_the_api_does() -> None:
    table = (mirrorsym.__doc__ or "").split("==\n")[1]
    said: dict[str, str] = {}
    for line in table.splitlines()[:-1]:
        if verb := line[:28].strip():
            said[verb] = ""
        said[list(said)[-1]] += f" {line[28:]}"
    grouped = {verb: " ".join(modules.values()).split() for verb, modules in mirrorsym._NAMES.items()}
    assert {verb: re.findall(r"\w+", names) for verb, names in said.items()} == grouped


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_it_imports_nothing() -> None:
    assert python("import sys, mirrorsym; print({'torch', 'numpy'} & set(sys.modules))") == "set()\n"


def test_a_name_that_needs_no_torch_imports_none() -> None:
    assert python("import sys, mirrorsym; mirrorsym.rank, mirrorsym.Mirror; print('torch' in sys.modules)") == "False\n"


@pytest.mark.parametrize(("name", "missing"), [("find_symmetries", "torch"), ("Mirror", "numpy")])
def test_a_missing_dependency_is_one_sentence(name: str, missing: str) -> None:
    code = f"""
    import sys, mirrorsym
    sys.modules[{missing!r}] = None
    try:
        mirrorsym.{name}
    except ImportError as error:
        print(error)
    """
    assert python(textwrap.dedent(code)) == f"mirrorsym.{name} needs {missing}: pip install {missing}\n"


def test_the_example_of_the_docstring_runs_and_finds_the_collapse(capsys: pytest.CaptureFixture[str]) -> None:
    assert mirrorsym.__doc__ is not None
    code = mirrorsym.__doc__.partition("::\n\n")[2].partition("\n\nIt needs")[0]
    assert len(code.strip().splitlines()) <= 12
    readme = Path(__file__).parents[2] / "README.md"
    assert textwrap.dedent(code).strip() in readme.read_text(encoding="utf-8")
    exec(compile(textwrap.dedent(code), "example", "exec"), {})
    copies, signs = capsys.readouterr().out.splitlines()
    left = re.fullmatch(r"0, 2 \(permutation\): (\d+) of 16 units are different", copies)
    assert left is not None
    assert 1 <= int(left[1]) <= 4
    assert signs == "1 symmetry has lost nothing"
