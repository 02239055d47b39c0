"""The rows of Table 2: channels and sizes are the paper's."""

import functools
import re
import shlex

import pytest

import prunegraph
from benchmarks.paper.published import DATA, SEPARATORS, TABLE_2
from benchmarks.paper.subjects import row_budget
from tests.models.test_published import SEPPRUNE_GROUPS, SHORT, unrolled_twice
from tests.project.sources import ROOT

NAMES = {"tdanet": "tdanet", "afrcnn": "afrcnn12", "sudormrf": "sudormrf"}
PAGE = ROOT / "docs" / "howto" / "reproduce-the-paper.md"
ROWS = list(TABLE_2)


@functools.cache
def graph(separator: str) -> prunegraph.DependencyGraph:
    """The published network; the recurrent ones apply their block twice, which changes no channel and no parameter."""
    return prunegraph.build_graph(unrolled_twice(NAMES[separator]), SHORT)


def plan(separator: str, data: str, criterion: str = "random") -> prunegraph.PruningPlan:
    budget = row_budget(separator, data, criterion)
    return prunegraph.select(graph(separator), prunegraph.score(graph(separator), criterion, budget=budget), budget)


@pytest.mark.parametrize("criterion", ["random", "l1"])
@pytest.mark.parametrize(("separator", "data"), ROWS)
def test_a_row_prunes_the_papers_channels_to_the_papers_size(separator: str, data: str, criterion: str) -> None:
    found = plan(separator, data, criterion)
    narrowed = {name for name, kept in found.kept.items() if len(kept) < found.widths[name]}
    assert narrowed == set(SEPPRUNE_GROUPS[NAMES[separator]])
    wanted = TABLE_2[separator, data].pruned.parameters
    assert 0.98 * wanted <= graph(separator).cost(found).parameters <= wanted


@pytest.mark.parametrize(
    ("separator", "kept"),
    # Derived from the channels' parameters by hand: of TDANet 604 +- 5 stay, of SuDoRM-RF 3,922 +- 17 go.
    [("tdanet", range(599, 610)), ("sudormrf", range(16 * 512 - 3939, 16 * 512 - 3904))],
)
def test_so_many_channels_stay_on_lrs2(separator: str, kept: range) -> None:
    found = plan(separator, "lrs2")
    assert sum(len(found.kept[name]) for name in SEPPRUNE_GROUPS[NAMES[separator]]) in kept


@pytest.mark.parametrize(("separator", "data"), ROWS)
def test_the_dense_size_is_ours(separator: str, data: str) -> None:
    parameters = graph(separator).cost().parameters
    assert round(parameters / 1e6, 2) == TABLE_2[separator, data].dense.parameters / 1e6


def test_the_papers_rule_has_no_size() -> None:
    budget = row_budget("tdanet", "lrs2", "sepprune-epsilon")
    assert (budget.threshold, budget.params, budget.include) == (0.0, None, SEPARATORS["tdanet"].groups)


def test_the_page_has_a_command_for_every_row() -> None:
    commands = re.findall(r"^python -m benchmarks\.paper run (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [(words[0], words[words.index("--data") + 1]) for words in map(shlex.split, commands)]
    assert sorted(rows) == sorted(ROWS)
    assert set(ROWS) == {(separator, data) for separator in SEPARATORS for data in DATA}
