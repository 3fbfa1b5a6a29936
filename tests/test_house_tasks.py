"""No string key of a task outside tasks/, no kind asked for, no list of modalities in a command: read from the code."""

import ast

import pytest
from test_house import ROOT, is_text, name, tree


def _of_tasks(node: ast.AST) -> bool:
    """Whether an expression reaches into `.tasks`, or is what a task says of itself as a dict."""
    return any(
        isinstance(part, ast.Attribute) and part.attr in ("tasks", "task_sides", "trained", "about", "sides")
        for part in ast.walk(node)
    )


def _names(target: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}


def task_keys(module: ast.Module, kinds: set[str]) -> list[tuple[int, str]]:
    """Where a task is looked into by a string: subscripts, `.get`, getattr and hasattr; and `isinstance` of a kind."""
    bound = {"task"}
    for node in ast.walk(module):
        if isinstance(node, ast.For | ast.comprehension) and _of_tasks(node.iter):
            bound |= _names(node.target)
        elif isinstance(node, ast.Assign) and _of_tasks(node.value):
            bound |= {name for target in node.targets for name in _names(target) if isinstance(target, ast.Name)}

    def is_task(node: ast.expr) -> bool:
        return node.id in bound if isinstance(node, ast.Name) else _of_tasks(node)

    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Subscript) and is_text(node.slice) and is_task(node.value):
            found.append((node.lineno, "a key"))
        elif isinstance(node, ast.Call) and len(node.args) > 0:
            asked, first = node.func, node.args[0]
            if isinstance(asked, ast.Attribute) and asked.attr == "get" and is_text(first) and is_task(asked.value):
                found.append((node.lineno, "a key"))
            elif isinstance(asked, ast.Name) and asked.id in ("getattr", "hasattr") and len(node.args) > 1:
                found += [(node.lineno, "an attribute by name")] if is_task(first) and is_text(node.args[1]) else []
            elif isinstance(asked, ast.Name) and asked.id == "isinstance" and kinds & _names(node.args[1]):
                found.append((node.lineno, "its kind"))
    return found


def kinds_of_tasks() -> set[str]:
    """The classes of tasks/ that others are made of: every task but the base, and every candidate set."""
    nodes = (node for path in (ROOT / "tasks").rglob("*.py") for node in ast.walk(tree(path)))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    known = {"Task", "CandidateSet"}
    while more := {c.name for c in classes if c.name not in known and any(known & _names(base) for base in c.bases)}:
        known |= more
    return known - {"Task", "CandidateSet"}


def test_nothing_outside_tasks_asks_a_task_by_a_string_or_for_its_kind():
    kinds = kinds_of_tasks()
    assert {"Classify", "Forecast", "Names", "Residuals", "Marks"} <= kinds
    wrong = [
        f"{name(path)}:{line} asks a task for {what}"
        for path in sorted((ROOT / "generalist").rglob("*.py"))
        if "recipes" not in path.parts  # a recipe is a list of tasks of its own
        for line, what in task_keys(tree(path), kinds)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "scale = processor.tasks[name]['scale']",
        "about = processor.tasks.get(name, {})\nkind = about.get('kind', '')",
        "for name, about in processor.tasks.items():\n    print(about['inputs'])",
        "found = [n for n, t in processor.tasks.items() if set(t['inputs']) == given]",
        "if task.about().get('writes'): pass",
        "sides = task.sides()\nprint(sides['writes'])",
        "fields = getattr(task, 'partners', {})",
        "if isinstance(task.candidates, Names): pass",
    ],
)
def test_the_rule_of_tasks_sees_a_key_and_a_kind(source):
    assert len(task_keys(ast.parse(source), {"Names"})) == 1


def test_the_rule_of_tasks_lets_others_dicts_pass():
    source = "line = metrics['tasks'][task.name]['value']\nnames = [task.name for task in processor.tasks.values()]"
    assert task_keys(ast.parse(source), {"Names"}) == []


def test_no_command_holds_a_list_of_modalities():
    from generalist.tokenizers_mod.base.modalities import MODALITIES

    content = MODALITIES.keys() - {"summary", "text"}  # which every model has
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in sorted((ROOT / "generalist" / "commands").rglob("*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Tuple | ast.List | ast.Set)
        and sum(isinstance(item, ast.Constant) and item.value in content for item in node.elts) > 1
    ]
    assert not wrong, wrong
