"""What is installed, what the commands say of themselves, and who imports whom."""

import ast
import importlib
import importlib.metadata
import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree
import zipfile

import pytest

from deeppose_tf.pipelines.cli import scripts

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = {
    "deeppose_tf": "deeppose_tf",
    "pipelines": "deeppose_tf/pipelines",
    "export": "deeppose_tf/export",
}
# Name of an installed command -> the module that it starts.
SCRIPTS = {
    f"deeppose-{name}": f"{folder}.commands"
    for name, (folder, _) in scripts.COMMANDS.items()
}
# The order of imports: each imports from its own row and from rows above. A module of
# the library, or a folder of pipelines and export, that no row names is a failure.
ORDER = [
    {"__init__", "startup", "files", "skeleton"},
    {"config", "geometry", "metrics", "person_detector", "plot", "datasets"},
    {"sampling", "losses", "draw", "detect", "tracking"},
    {"layers"},
    {"networks"},
    {"weights"},
    {"stage"},
    {"cascade"},
    {"pipelines.cli", "pipelines", "export"},
    {"pipelines.data"},
    # Training scores the held-out people as evaluation does: evaluation comes first.
    {"pipelines.evaluation"},
    {"pipelines.train"},
    {"pipelines.predict", "pipelines.profiling"},
    {"pipelines.paper"},
    {"export.saved_model", "export.tflite", "export.serving"},
    {"export.benchmark", "export.commands"},
]


def _python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the tree, made from a copy so that nothing is left in the tree."""
    copy = tmp_path_factory.mktemp("source")
    for folder in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = "-m pip wheel . --no-deps --no-build-isolation -q -w wheels"
    made = _python(*command.split(), cwd=copy)
    assert made.returncode == 0, made.stderr
    (path,) = (copy / "wheels").glob("*.whl")
    return path


def test_wheel_holds_every_module_under_one_name(wheel):
    source = wheel.parents[1]
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"deeppose_tf"}
    expected = {
        f"{package}/{path.relative_to(source / folder).as_posix()}"
        for folder, package in PACKAGES.items()
        for path in (source / folder).rglob("*.py")
    }
    assert expected == {name for name in names if name.endswith(".py")}
    assert any(name.endswith("LICENSE") for name in names)
    assert "deeppose_tf/py.typed" in names


def test_wheel_runs_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import deeppose_tf.pipelines as p, deeppose_tf.export; print(p.__file__)"
    ran = _python("-c", program, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    found = pathlib.Path(ran.stdout.strip())
    assert found == tmp_path / "deeppose_tf" / "pipelines" / "__init__.py", ran.stderr


def test_a_checkout_is_whole_where_python_finds_it_first():
    """README's snippets failed in it after `pip install .`."""
    program = "import deeppose_tf.pipelines as p, deeppose_tf.export; print(p.__file__)"
    # Without site-packages, where an editable install would help.
    ran = _python("-S", "-c", program, cwd=ROOT)
    assert ran.stdout.strip() == str(ROOT / "pipelines" / "__init__.py"), ran.stderr


def _exists(module):
    return (ROOT / f"{module.replace('.', '/')}.py").is_file()


@pytest.fixture(scope="module")
def manuals():
    """Name of a script -> what it says of itself, and its own flags with their help."""
    found = {}
    for script in filter(lambda script: _exists(SCRIPTS[script]), SCRIPTS):
        command = [pathlib.Path(sys.executable).with_name(script), "--helpxml"]
        asked = subprocess.run(command, capture_output=True, text=True)
        assert asked.stdout, f"{script}: {asked.stderr}"
        tree = xml.etree.ElementTree.fromstring(asked.stdout)
        flags = {
            flag.findtext("name"): flag.findtext("meaning")
            for flag in tree.iter("flag")
            if flag.findtext("key") == "yes"
        }
        found[script] = tree.findtext("usage"), flags
    return found


def test_setup_installs_every_command():
    installed = {
        one.name: one.load()
        for one in importlib.metadata.entry_points(group="console_scripts")
        if one.module.startswith("deeppose_tf.")
    }
    assert installed.pop("deeppose") is scripts.main
    assert set(installed) == set(SCRIPTS)
    for name, begin in installed.items():
        assert begin.args == (name.removeprefix("deeppose-"),)
        assert _exists(SCRIPTS[name])


def test_ctrl_c_before_a_script_begins_is_a_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["/bin/deeppose-train"])
    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(SystemExit) as left:
        scripts.train()
    assert left.value.code == 130
    assert capsys.readouterr().err == "\ndeeppose-train: stopped before it began\n"


def test_every_script_explains_itself_and_its_flags(manuals):
    for script, (usage, flags) in manuals.items():
        assert script in usage
        assert flags
        for name, meaning in flags.items():
            # A choice's help starts with what may be chosen: <one|two>: help.
            words = re.sub(r"^<[^>]*>: ", "", meaning).split()
            assert len(words) > 2 and words[-1].endswith((".", ")")), (script, name)


DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_in_documents_compiles_and_imports_what_there_is(name):
    text = (ROOT / name).read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        tree = compile(block, name, "exec", flags=ast.PyCF_ONLY_AST)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.split(".")[0] == "deeppose_tf":
                    module = importlib.import_module(node.module)
                    for alias in node.names:
                        submodule = f"{node.module}.{alias.name}"
                        found = hasattr(module, alias.name)
                        assert found or importlib.util.find_spec(submodule), submodule
            elif isinstance(node, ast.Attribute):
                if getattr(node.value, "id", None) == "deeppose_tf":
                    package = importlib.import_module("deeppose_tf")
                    assert hasattr(package, node.attr), f"{name}: {node.attr}"


def _written_commands():
    """(file, words) of every `deeppose-...` command in documents and the Makefile."""
    for name in (*DOCUMENTS, "Makefile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        for line in re.findall(r"^\s*(?:\$\(BIN\)/)?(deeppose-.*)$", text, re.M):
            yield name, shlex.split(line, comments=True)


def test_documents_use_flags_that_exist(manuals):
    commands = list(_written_commands())
    assert {file for file, _ in commands} >= {"README.md", "Makefile"}
    for file, (script, *words) in commands:
        assert script in manuals, f"{file}: {script}"
        for word in words:
            name = re.fullmatch(r"--(\w+)(=.*)?", word).group(1)
            assert name in manuals[script][1], f"{file}: {script} --{name}"


def test_no_tensorflow_where_none_is_needed():
    program = """
import importlib, pkgutil, sys
import deeppose_tf.datasets as datasets
for name in ["skeleton", "metrics", "draw", "plot"]:
    importlib.import_module(f"deeppose_tf.{name}")
for module in pkgutil.walk_packages(datasets.__path__, datasets.__name__ + "."):
    importlib.import_module(module.name)
print([name for name in ("tensorflow", "keras", "absl") if name in sys.modules])
"""
    ran = _python("-c", program)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr


def _imports(path):
    """The dotted names that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _unit(module):
    """`cascade` of deeppose_tf.cascade, `pipelines.data` of all in that folder."""
    parts = module.split(".")[1:]
    if parts and parts[0] in ("pipelines", "export"):
        known = [one for row in ORDER for one in row]
        folder = ".".join(parts[:2])
        # A name of the package itself, such as a function, is no folder.
        own = (ROOT / folder.replace(".", "/")).is_dir() or _exists(folder)
        return folder if own or folder in known else parts[0]
    return parts[0] if parts and _is_module(parts[0]) else "__init__"


def _is_module(name):
    path = ROOT / "deeppose_tf" / name
    return path.is_dir() or path.with_suffix(".py").is_file()


def _row(unit):
    rows = [number for number, row in enumerate(ORDER) if unit in row]
    assert len(rows) == 1, f"{unit}: say in ORDER what it may import"
    return rows[0]


LIBRARY = sorted((ROOT / "deeppose_tf").rglob("*.py"))
SOURCES = {
    path: f"{PACKAGES[top]}/{path.relative_to(ROOT / top).with_suffix('')}".replace(
        "/", "."
    ).removesuffix(".__init__")
    for top in PACKAGES
    for path in sorted((ROOT / top).rglob("*.py"))
}


@pytest.mark.parametrize("path", SOURCES, ids=SOURCES.get)
def test_imports_run_one_way(path):
    """Modules that nobody had named were in the middle, and passed."""
    own = SOURCES[path]
    if own == "deeppose_tf":  # the public face imports when it is asked, see below
        return
    unit = "pipelines" if own == "deeppose_tf.pipelines.__main__" else _unit(own)
    for name in _imports(path):
        assert not name.startswith(("pipelines", "export")), name
        assert not (path in LIBRARY and name.startswith("absl")), name
        # `Cascade.export` and `export_tflite` are called by users, and import then.
        face = own == "deeppose_tf.cascade" and name.startswith("deeppose_tf.export.")
        if name.split(".")[0] == "deeppose_tf" and not face:
            assert _row(_unit(name)) <= _row(unit), f"{own} imports {name}"


def test_the_order_names_nothing_else():
    named = {one for row in ORDER for one in row}
    used = {_unit(own) for own in SOURCES.values()}
    assert named - used <= {"weights"}  # which are to come


def test_the_public_face_imports_nothing_until_it_is_asked():
    program = """
import sys, deeppose_tf
print([name for name in ("tensorflow", "keras", "absl", "deeppose_tf.pipelines")
       if name in sys.modules])
"""
    ran = _python("-W", "error", "-c", program)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_library_does_not_print(path):
    calls = (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
    )
    printed = [n for n in calls if getattr(n.func, "id", None) == "print"]
    assert len(printed) == (path.stem == "cascade")  # `summary`, as Keras has it
