"""What a compiled module says about itself, as JSON: kept in artifacts and in the cache beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.ir.recipe import BestPlan, Judged, LoadPlan, PhasePlan, Recipe, RecipeField, SavePlan
from dslc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Signature:
    """`name` is the model or recipe, `file` where it came from, `flops` (fixed, an example) of each program, `recipe` if it trains.

    `data` is the JSON of the data set's description, where weights of a trained network brought one.
    """

    name: str
    file: str
    flops: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    recipe: Recipe | None = None
    data: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {
            "name": self.name,
            "file": self.file,
            "flops": {name: list(pair) for name, pair in self.flops.items()},
            "recipe": recipe_json(self.recipe) if self.recipe else None,
            "data": self.data,
        }

    @staticmethod
    def from_json(data: Any) -> Signature:
        """Reads `to_json`; DL0663 for anything else."""
        try:
            recipe = data["recipe"]
            return Signature(
                str(data["name"]),
                str(data["file"]),
                {str(k): (int(a), int(b)) for k, (a, b) in data["flops"].items()},
                recipe_from_json(recipe) if recipe else None,
                None if data["data"] is None else str(data["data"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DiagnosticError(Diagnostic("DL0663", f"the artifact's signature is damaged: {error!r}")) from error


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data."""
    data = asdict(recipe)
    data["fields"] = [[f.name, f.dtype.value, list(f.shape)] for f in recipe.fields]
    data["settings"] = [list(s) for s in recipe.settings]
    data["base"] = str(recipe.base)
    return data


def recipe_from_json(data: Mapping[str, Any]) -> Recipe:
    """The inverse of `recipe_json`."""
    known = dict(data)
    known["fields"] = tuple(RecipeField(str(n), DType(d), tuple(int(e) for e in shape)) for n, d, shape in data["fields"])
    known["settings"] = tuple((str(n), v) for n, v in data["settings"])
    known["data_options"] = tuple((str(n), tuple(v) if isinstance(v, list) else v) for n, v in data.get("data_options", ()))
    known["save"] = SavePlan(**data["save"]) if data["save"] else None
    known["monitor"] = Judged(**data["monitor"]) if data["monitor"] else None
    known["best"] = BestPlan(str(data["best"]["path"]), Judged(**data["best"]["judged"])) if data["best"] else None
    known["span"] = Span(**data["span"]) if data["span"] else None
    known["base"] = Path(data["base"])
    known["metrics"], known["augment"], known["totals"] = tuple(data["metrics"]), tuple(data["augment"]), tuple(data["totals"])
    known["phases"] = tuple(PhasePlan(**phase) for phase in data["phases"])
    known["loads"] = tuple(_load_from_json(load) for load in data["loads"])
    return Recipe(**known)


def _load_from_json(data: Mapping[str, Any]) -> LoadPlan:
    known = dict(data)
    known["rename"] = tuple((str(pattern), name) for pattern, name in data["rename"])
    known["fresh"] = tuple(data["fresh"])
    known["span"] = Span(**data["span"]) if data["span"] else None
    return LoadPlan(**known)
