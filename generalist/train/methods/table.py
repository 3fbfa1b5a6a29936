"""The one explicit table of methods: a name of `method.kind` and where its class is."""

from __future__ import annotations

from generalist.data.base.named import named as by_name
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.train.methods.base import Added

METHODS: dict[str, str] = {
    "distill": "generalist.train.methods.distill:Distill",
    "sparse": "generalist.train.methods.sparse:Sparse",
    "elastic": "generalist.train.methods.elastic:Elastic",
}


def build_method(recipe: Recipe, objective: Objective) -> Added | None:
    """The method that a recipe asks for, at work on `objective`; None where the law is all."""
    name = recipe.asked_method
    if not name:
        return None
    method = by_name(METHODS[name])()
    method.prepare(objective, recipe)
    return Added(method, objective)
