"""`generalist info`: what there is to choose from, as the classes themselves say it."""

import importlib
import json
import sys

from generalist.cli import main


def test_info_as_json_lists_what_there_is_to_choose_from(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"versions", "devices", "modalities", "tasks", "recipes"} <= set(found)
    assert {"image", "text", "table"} <= set(found["modalities"])
    assert "demo" in found["recipes"]
    assert {"attention", "expert_attention"} <= set(found["mixers"]) and "swiglu" in found["channel_mixers"]
    assert "merge" in found["stages"] and "multi-head" in found["mixers"]["attention"].lower()
    assert found["readouts"]["last"] == "The last token of the asked token's sequence."
    assert main(["info"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 120


def test_info_reads_from_the_source_what_the_classes_say():
    from generalist.commands.info import PARTS, modalities, sections
    from generalist.data.sources.places import SOURCES
    from generalist.nn.mixers.table import mixer_class
    from generalist.recipe.load import RECIPES, load_recipe
    from generalist.tasks.registry.table import TASKS
    from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class

    kinds = {name: modality_class(name) for name in MODALITIES}
    assert modalities() == {name: {"raw": kind.raw, "tokens": kind.count} for name, kind in kinds.items()}
    found = dict(sections())
    files = {name: sys.modules[kind.__module__].__doc__ for name, kind in TASKS.items()}
    assert found["tasks"] == {name: text.splitlines()[0] for name, text in files.items()}
    for title, (module, table) in PARTS.items():
        classes = getattr(importlib.import_module(module), table)
        lines = {name: (mixer_class(classes, name).__doc__ or "").strip().partition("\n")[0] for name in classes}
        assert found[title] == lines, title
    for title, line in found["sources"].items():
        module, name = next(pair for word, pair in SOURCES.items() if title == f"{word} ({pair[1]})")
        kind = vars(importlib.import_module(f"generalist.data.sources.{module}"))[name]
        assert line == sys.modules[kind.__module__].__doc__.strip().splitlines()[0]
    assert len(found["sources"]) == len(SOURCES)
    assert found["recipes"] == {name: load_recipe(name).about for name in RECIPES}
