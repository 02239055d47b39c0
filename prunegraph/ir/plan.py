"""A pruning plan: which channels stay, and what that means for every tensor and attribute. No tensors in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunegraph.errors import PlanError

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeUpdate:
    """A size attribute of a module that must change: ``name`` may index containers, as in ``size[0]``."""

    module: str
    name: str
    old: int
    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """Everything surgery needs to know; made by `DependencyGraph.plan`, saved as JSON.

    Attributes:
        kept: group name -> channels that stay, ascending.
        widths: group name -> number of channels before.
        tensors: tensor name -> dimension -> indices that stay, for every tensor that shrinks, under each of its names.
        attributes: size attributes that change.
        replaced: paths of modules that are replaced by an equal one that allows the new widths.
        shapes: every parameter and persistent buffer of the network that the plan is for, with its shape.
        fleeting: the other tensors that shrink, with their shapes: a forward pass may have left them there, and another
            instance of the network may not have them yet.
    """

    kept: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, int]
    tensors: Mapping[str, Mapping[int, tuple[int, ...]]]
    attributes: tuple[AttributeUpdate, ...]
    replaced: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    fleeting: Mapping[str, tuple[int, ...]]

    def __repr__(self) -> str:
        return f"PruningPlan({sum(map(len, self.kept.values()))} of {sum(self.widths.values())} channels stay)"

    def kept_indices(self) -> dict[str, dict[int, tuple[int, ...]]]:
        """``{tensor name of the original: {dim: kept indices}}`` for every tensor that shrinks."""
        return {name: dict(dims) for name, dims in self.tensors.items()}

    def kept_after(self, later: "PruningPlan") -> dict[str, tuple[int, ...]]:
        """Group name -> channels of this plan's network that stay when ``later`` prunes what this plan left.

        Raises:
            PlanError: ``later`` is for another network than this plan leaves.
        """
        for name, width in later.widths.items():
            if width != len(self.kept.get(name, ())):
                left = len(self.kept[name]) if name in self.kept else "no such group"
                raise PlanError(f"these plans do not follow each other: group {name} is {width} wide, left was {left}")
        return {
            name: tuple(kept[channel] for channel in later.kept.get(name, range(len(kept))))
            for name, kept in self.kept.items()
        }

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "kept": self.kept,
                "widths": self.widths,
                "tensors": self.tensors,
                "attributes": [[a.module, a.name, a.old, a.new] for a in self.attributes],
                "replaced": self.replaced,
                "shapes": self.shapes,
                "fleeting": self.fleeting,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "PruningPlan":
        """Reads what `to_json` wrote.

        Raises:
            PlanError: the text is no plan, or of another schema version.
        """
        try:
            raw = json.loads(text)
            if raw["schema_version"] != SCHEMA_VERSION:
                raise PlanError(
                    f"the plan has schema version {raw['schema_version']}, this prunegraph reads {SCHEMA_VERSION}"
                )
            return _from_raw(raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"this is no pruning plan: {type(error).__name__}: {error}") from error


def _from_raw(raw: dict[str, Any]) -> PruningPlan:
    return PruningPlan(
        kept={name: tuple(kept) for name, kept in raw["kept"].items()},
        widths=dict(raw["widths"]),
        tensors={name: {int(dim): tuple(kept) for dim, kept in dims.items()} for name, dims in raw["tensors"].items()},
        attributes=tuple(AttributeUpdate(module=m, name=n, old=o, new=w) for m, n, o, w in raw["attributes"]),
        replaced=tuple(raw["replaced"]),
        shapes={name: tuple(shape) for name, shape in raw["shapes"].items()},
        fleeting={name: tuple(shape) for name, shape in raw["fleeting"].items()},
    )
