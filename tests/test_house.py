"""The rules of the house, read from the source: imports in one straight line, no branch on a name, nothing private."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINE = ["data", "tokenizers_mod", "tasks", "generalist", "scripts"]
# Within a folder its rooms run in a line too: a room imports itself and what stands to its left.
ROOMS = {
    "generalist": (
        [
            "machine",
            "shipped",
            "recipe",
            "nn",
            "model",
            "hf",
            "convert",
            "train",
            "evaluate",
            "inspect",
            "compress",
            "adapt",
            "report",
            "run",
            "recipes",
            "fitting",
            "clients",
            "serve",
            "commands",
            "launchers",
        ]
    ),
    "data": ["base", "batch", "stream", "media", "files", "tables", "sources", "tools"],
    "tokenizers_mod": [
        "base",
        "maps",
        "backbones",
        "numbers",
        "vision",
        "audio",
        "text",
        "tables",
        "geometry",
        "libraries",
        "pretrained",
        "regions",
        "published",
        "towers",
    ],
    "tasks": ["candidates", "measures", "base", "kinds", "registry", "baselines"],
}
# what trust_remote_code runs imports the whole package on purpose
DOORS = {"generalist/hf/remote_code.py", "generalist/shipped/starter/generalist_remote.py"}
CROWDED: set[str] = set()
LONGEST = 400
# Where a task's or a modality's own name may be asked for.
AT_HOME = {"task": "tasks", "modality": "tokenizers_mod"}

# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"/(?:wor[k]/|roo[t]/|op[t]/|hom[e]/\w|User[s]/\w|mn[t]/)"
    r"|pyp[i]\.org|pythonhoste[d]\.org|download\.pytorc[h]\.org|--(?:extra-)?index-ur[l]|--find-link[s]|FIND_LINK[S]"
)


def python_files() -> list[Path]:
    """Every Python file of the five folders and the tests."""
    found = [path for name in [*LINE, "tests"] for path in sorted((ROOT / name).rglob("*.py"))]
    return [path for path in found if "__pycache__" not in path.parts]


def kept_files() -> list[Path]:
    """Files that git keeps or would keep; every file outside hidden and built folders where there is no git."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        skipped = {".venv", ".git", "runs", "build", "dist", "__pycache__"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not skipped & set(p.relative_to(ROOT).parts)]
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    """The import name of a folder or file: generalist.data.batch for data/batch."""
    found = name(path).removesuffix(".py").replace("/", ".")
    return found if found.split(".")[0] == "generalist" else f"generalist.{found}"


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name(path))


def imports(module: ast.Module) -> list[tuple[int, str]]:
    """Line and dotted name of every absolute import, those inside functions too."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.lineno, node.module))
    return found


def wrong_arrows(module: ast.Module, room: str) -> list[tuple[int, str]]:
    """Imports that point to the right of ``room`` in the line, or into the tests."""
    right = {*LINE[LINE.index(room) + 1 :], "tests"}
    return [(line, target) for line, target in imports(module) if home(target) in right]


def home(target: str) -> str:
    """The top folder that an import reaches: "generalist.data.batch" is data; a bare "data" is somebody else's."""
    first, _, rest = target.partition(".")
    second = rest.partition(".")[0]
    return second if first == "generalist" and second in LINE else first if first in ("generalist", "tests") else ""


def is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(is_text(item) for item in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _noun(node: ast.expr) -> str | None:
    """ "task" or "modality" where the expression is such a variable, an attribute of that name, or its name or kind."""
    if isinstance(node, ast.Attribute):
        return node.attr if node.attr in AT_HOME else _noun(node.value) if node.attr in ("name", "kind") else None
    return node.id if isinstance(node, ast.Name) and node.id in AT_HOME else None


def branches(module: ast.Module) -> list[tuple[int, str]]:
    """Comparisons and matches of a task or a modality with a written-out name."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            nouns = [noun for side in sides if (noun := _noun(side))]
            if nouns and any(is_text(side) for side in sides):
                found.append((node.lineno, nouns[0]))
        elif isinstance(node, ast.Match) and (noun := _noun(node.subject)):
            found.append((node.lineno, noun))
    return found


def test_imports_run_in_one_straight_line():
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for room in LINE
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, target in wrong_arrows(tree(path), room)
    ]
    assert not wrong, f"imports must run {' <- '.join(LINE)}:\n" + "\n".join(wrong)


def test_no_code_asks_which_task_or_modality_it_is():
    wrong = [
        f"{name(path)}:{line} compares a {noun} with a name"
        for room in LINE
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, noun in branches(tree(path))
        if AT_HOME[noun] != room
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "if batch.task == 'classify': pass",
        "if span.modality in ('image', 'text'): pass",
        "if 'image' != modality: pass",
        "if task.kind == 'vqa': pass",
        "match batch.task:\n    case 'classify': pass",
    ],
)
def test_the_branch_rule_sees_a_branch(source):
    assert len(branches(ast.parse(source))) == 1


def test_the_branch_rule_lets_comparisons_of_two_values_pass():
    assert branches(ast.parse("if batch.task == wanted and span.modality in table: pass")) == []


def test_the_listed_packages_are_those_on_disk():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    on_disk = {dotted(path.parent) for room in LINE for path in (ROOT / room).rglob("__init__.py")}
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(on_disk), "list each package in pyproject.toml, [tool.setuptools] packages"


def test_every_folder_with_python_files_is_a_package():
    folders = {path.parent for room in LINE for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts}
    assert not [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]


def test_every_file_says_what_it_is():
    assert not [name(path) for path in python_files() if not ast.get_docstring(tree(path))]


def test_no_file_is_long():
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert not {path: lines for path, lines in lengths.items() if lines >= LONGEST}


def sources() -> dict[str, str]:
    """The text of every Python file that is not a test's."""
    return {name(path): path.read_text(encoding="utf-8") for path in python_files()}


# What the house holds itself to, at what was reached: these numbers go down.
ASKED_BY_NAME = 1.5  # getattr and hasattr a thousand lines
UNCHECKED = 30  # type: ignore
LONG_FUNCTIONS = 5  # of more than 60 lines
LONG_FILES = 0  # of 300 lines or more


def test_the_house_asks_little_by_name_and_leaves_little_unchecked():
    texts = {path: text for path, text in sources().items() if not path.startswith("tests/")}
    lines = sum(len(text.splitlines()) for text in texts.values())
    asked = sum(len(re.findall(r"\b(?:getattr|hasattr)\(", text)) for text in texts.values())
    assert 1000 * asked / lines <= ASKED_BY_NAME, f"{asked} in {lines} lines; say it by a protocol or a class"
    assert sum(text.count("# type: ignore") for text in texts.values()) <= UNCHECKED


def test_few_functions_and_files_are_long():
    texts = {path: text for path, text in sources().items() if not path.startswith("tests/")}
    long = [
        f"{path}:{node.name} {node.end_lineno - node.lineno + 1}"
        for path, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    ]
    assert len(long) <= LONG_FUNCTIONS, "\n".join(long)
    files = [path for path, text in texts.items() if len(text.splitlines()) >= 300]
    assert len(files) <= LONG_FILES, "\n".join(files)


def test_no_kept_file_names_a_machine_path_or_a_package_host():
    wrong = []
    for path in kept_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [
            f"{name(path)}:{i} {line.strip()[:100]}"
            for i, line in enumerate(text.splitlines(), 1)
            if PRIVATE.search(line)
        ]
    assert not wrong, "\n".join(wrong)


def test_torch_and_torchvision_are_pinned_as_a_pair_and_every_constraint_is_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    loose = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not loose, f"exact public versions only: {loose}"
    assert {"torch", "torchvision"} <= {line.split("==")[0] for line in lines}


def test_everything_that_is_installed_by_default_is_pinned():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["test"], *extras["lint"]]]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for requirement in wanted:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} against the pinned {version}"


def test_the_import_rule_sees_an_arrow_that_points_right():
    source = "import torch, data\ndef f():\n    from generalist.nn import encoder\n    import generalist.data.batch\n"
    assert wrong_arrows(ast.parse(source), "tasks") == [(3, "generalist.nn")]
    assert wrong_arrows(ast.parse(source), "scripts") == []


def modules(module: ast.Module) -> list[tuple[int, str]]:
    """Line and dotted name of everything imported, `from a import b` as "a.b"."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def to_the_right(module: ast.Module, folder: str, room: str) -> list[tuple[int, str]]:
    """Imports of rooms of `folder` ("generalist", "data" ...) that stand to the right of `room`."""
    prefix = "generalist." if folder == "generalist" else f"generalist.{folder}."
    right = ROOMS[folder][ROOMS[folder].index(room) + 1 :]
    return [
        (line, target)
        for line, target in modules(module)
        if target.startswith(prefix) and target.removeprefix(prefix).split(".")[0] in right
    ]


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_import_to_the_left_only(folder):
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for room in ROOMS[folder]
        for path in sorted((ROOT / folder / room).rglob("*.py"))
        for line, target in to_the_right(tree(path), folder, room)
        if name(path) not in DOORS
    ]
    assert not wrong, f"imports must run {' <- '.join(ROOMS[folder])}:\n" + "\n".join(wrong)


def test_the_rule_of_rooms_sees_both_ways_of_importing():
    source = (
        "from generalist import train\nfrom generalist.hf.model import GeneralistModel\nimport generalist.nn.encoder\n"
    )
    assert to_the_right(ast.parse(source), "generalist", "model") == [
        (1, "generalist.train"),
        (2, "generalist.hf.model.GeneralistModel"),
    ]
    assert to_the_right(ast.parse("import generalist.data.tools.check"), "data", "base") == [
        (1, "generalist.data.tools.check")
    ]


@pytest.mark.parametrize("folder", ROOMS)
def test_every_file_stands_in_a_room_of_at_most_twelve(folder):
    loose = [path.name for path in (ROOT / folder).glob("*.py") if path.name not in ("__init__.py", "cli.py")]
    assert not loose, f"{folder}/: these files stand in no room"
    rooms = {path.name for path in (ROOT / folder).iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS[folder])
    folders = {path.parent for path in (ROOT / folder).rglob("*.py")}
    sizes = {name(f): sum(path.name != "__init__.py" for path in f.glob("*.py")) for f in folders}
    assert not {f: count for f, count in sizes.items() if count > 12 and f not in CROWDED}


def test_the_policies_that_a_recipe_may_name_are_those_that_exist():
    from generalist.model.candidates import POLICIES
    from generalist.recipe.specs import POLICY_NAMES

    assert tuple(POLICIES) == POLICY_NAMES
