"""What is installed: one wheel, pinned packages, entry points."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import prunegraph
from tests.project.sources import ROOT

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIG["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_the_library_and_its_plug_ins(wheel: zipfile.ZipFile) -> None:
    expected = {"prunegraph", *PROJECT["entry-points"]["prunegraph"].values()}
    packages = {Path(name).parts[0] for name in wheel.namelist()}
    assert packages == expected | {f"prunegraph-{prunegraph.__version__}.dist-info"}
    assert "prunegraph/py.typed" in wheel.namelist()


def test_the_wheel_holds_every_module_and_no_more(wheel: zipfile.ZipFile) -> None:
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "prunegraph").rglob("*.py")}
    sources |= {str(p.relative_to(ROOT / "plugins")) for p in (ROOT / "plugins").rglob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == sources


def test_the_wheel_declares_its_entry_points(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(f"prunegraph-{prunegraph.__version__}.dist-info/entry_points.txt").decode()
    assert "[prunegraph]" in text
    assert "prunegraph = prunegraph.cli:app" in text


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_normal(line.split("==")[0]): line for line in lines if line and not line.startswith("#")}
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    assert [name for name in map(_requirement_name, wanted) if name not in pins] == []
    assert [line for line in pins.values() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def _requirement_name(requirement: str) -> str:
    return _normal(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{prunegraph.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["venv", "test", "lint", "types", "fuzz", "zoo", "bench", "demo"])
def test_make_has_the_documented_targets(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_continuous_integration_runs_what_the_readme_says() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines() if "make" in line]
    assert commands[-1] == "make test"
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
