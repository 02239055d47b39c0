"""The examples in the documentation run, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.project.sources import ROOT, label

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    assert code
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 10
    names: dict = {}
    exec(code[1], names)
    assert names["separated"].shape == names["model"](names["example"]).shape
    assert {path.name for path in (tmp_path / "pruned").iterdir()} >= {"pruned.safetensors", "plan.json"}
