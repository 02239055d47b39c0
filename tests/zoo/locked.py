"""The committed table of channels that stay, and why: ``locked.md``."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from prunegraph.ir.channels import LockedGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One row of the table.

    Attributes:
        network: Name in the zoo.
        pattern: Shell pattern of the names of the locked groups.
        reason: Why they have to stay.
    """

    network: str
    pattern: str
    reason: str


def read_explanations(path: Path) -> tuple[Explanation, ...]:
    """Reads the rows ``| network | pattern | reason |`` below the table's head.

    Names of groups end in ``[dim]``, so brackets stand for themselves.
    """
    rows = [line.strip("| \n").split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    return tuple(
        Explanation(network=network.strip(), pattern=pattern.strip(" `").replace("[", "[[]"), reason=reason.strip())
        for network, pattern, reason in rows[1:]
    )


def explained_by(explanations: tuple[Explanation, ...], network: str, group: LockedGroup) -> list[Explanation]:
    """The rows that explain a locked group of a network."""
    return [row for row in explanations if row.network == network and fnmatchcase(group.name, row.pattern)]
