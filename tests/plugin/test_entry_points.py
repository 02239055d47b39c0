"""A stranger's distribution is found through its entry point, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "howto" / "criterion-plugin.md"
LIST_CRITERIA = "from prunegraph.plugin import create_manager, load_criteria; print(*load_criteria(create_manager()))"


def install(folder: Path, distribution: str, entry_point: str, source: str) -> None:
    """Lays out an installed distribution with one module and one entry point, as pip would leave it."""
    (folder / f"{distribution}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{distribution}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[prunegraph]\n{entry_point} = {distribution}\n", encoding="utf-8")


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def how_to() -> str:
    """The plug-in that the how-to develops."""
    code = re.search(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    return code[1]


def test_the_plug_in_of_the_how_to_is_discovered(tmp_path: Path, how_to: str) -> None:
    install(tmp_path, "stranger", "largest", how_to)
    result = run(tmp_path, LIST_CRITERIA)
    assert result.returncode == 0, result.stderr
    assert {"largest", "l1", "l2", "random"} <= set(result.stdout.split())


def test_the_plug_in_of_the_how_to_conforms(tmp_path: Path, how_to: str) -> None:
    install(tmp_path, "stranger", "largest", how_to)
    code = (
        "from prunegraph.plugin import find_criterion\n"
        "from prunegraph.testing import check_criterion\n"
        "check_criterion(find_criterion('largest'))\n"
    )
    result = run(tmp_path, code)
    assert result.returncode == 0, result.stderr


def test_two_distributions_with_one_entry_point_name_are_both_found(tmp_path: Path, how_to: str) -> None:
    install(tmp_path, "first", "same", how_to)
    install(tmp_path, "second", "same", how_to.replace('"largest"', '"other"'))
    assert {"largest", "other"} <= set(run(tmp_path, LIST_CRITERIA).stdout.split())


def test_a_plug_in_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    install(tmp_path, "stranger", "broken", "import does_not_exist")
    result = run(tmp_path, LIST_CRITERIA)
    assert result.returncode != 0
    assert "PluginError: plug-in 'stranger:broken' (stranger) cannot be imported: ModuleNotFoundError" in result.stderr
