"""The examples of the how-to page run as they stand."""

import json
import re
from pathlib import Path

import pytest

from tests.data.bad_files import SAMPLES, good
from tests.data.speakers import write_speakers
from tests.evaluation.separators import small_separator
from tests.project.sources import ROOT

PAGE = ROOT / "docs" / "howto" / "data-and-evaluation.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_speakers(tmp_path / "speech", clips=8)
    for number, track in enumerate(("mix", "s1", "s2")):
        (tmp_path / "data" / "tr" / track).mkdir(parents=True)
        paths = [tmp_path / "data" / "tr" / track / f"{i}.wav" for i in range(3)]
        entries = [[str(good(path, pitch=80 + 50 * number + 9 * i)), SAMPLES] for i, path in enumerate(paths)]
        (tmp_path / "data" / "tr" / f"{track}.json").write_text(json.dumps(entries))
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {"model": small_separator()}
    for example in examples:
        exec(example, names)
    assert len(examples) == 3
    assert names["mixture"].shape == (4, 1, 4000)
    assert names["sources"].shape == (4, 2, 4000)
    assert len(names["usable"]) == 3
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["si_sdr", "si_sdri"]
    assert (tmp_path / "scores.csv").read_text().startswith("mixture,seconds,si_sdr")
