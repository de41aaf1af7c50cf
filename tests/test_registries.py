"""Registries: who joins, what a name finds, and that no recommended name is refused."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import likely
from likely.cli.fields import fields_of, objective_fields
from likely.cli.parser import COMMANDS, build, module_of
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.heads import Head, head_for
from likely.models import MODELS, SEQUENCE_MODELS, entry, model
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.settings import HEADS, OBJECTIVES, Entry, Registry, to_json
from likely.training import adversarial, objectives
from likely.training.objectives import Objective
from sizes import COLOUR

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "likely").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers of nothing."""

    count: int = 1


# -- who has joined -----------------------------------------------------------------------


def test_every_objective_has_joined_with_its_settings() -> None:
    leaves = {
        kind
        for kind in {**vars(objectives), **vars(adversarial)}.values()
        if isinstance(kind, type)
        and issubclass(kind, Objective)
        # Other tests plant defects in classes of their own.
        and not any(below.__module__.startswith("likely.") for below in kind.__subclasses__())
    }
    joined = {name: entry.load() for name, entry in OBJECTIVES.items()}
    assert set(joined.values()) == leaves
    for name, kind in joined.items():
        assert name.replace("-", "") == kind.__name__.lower()
        assert issubclass(kind, OBJECTIVES[name].settings or object)
        assert getattr(likely, kind.__name__) is kind
        assert to_json(kind()) == to_json((OBJECTIVES[name].settings or object)())
    keys = {field.key for field in objective_fields()} - {"name"}
    assert keys == {f.name for kind in joined.values() for f in dataclasses.fields(kind)}


def test_every_head_has_joined() -> None:
    leaves = {kind for kind in Head.__subclasses__() if kind.__module__ == "likely.heads"}
    joined = [found for found in HEADS.values() if found.home == "likely.heads"]
    assert {found.load() for found in joined} == leaves
    for found in joined:
        made = head_for(found.name, likely.DataSpec("t", (1, 2, 2), 2))
        assert HEADS.of(type(made)) is found


# -- what a name finds --------------------------------------------------------------------


def test_a_name_is_taken_once_and_found_again() -> None:
    registry = Registry("thing", Entry)
    registry.join("a", "package.things:A", "package.things")
    registry.join("a", "package.things:A", "package.things")  # as where a cell runs again
    assert registry["a"].reference == "package.things:a"
    assert Entry("b", "likely.x:B", "likely.x").reference == "b"
    with pytest.raises(InvalidSetting, match=r'"a" is taken by package\.things:A'):
        registry.join("a", "other:A", "other")
    with pytest.raises(InvalidSetting, match="no colon"):
        registry.join("a:b", "other:A", "other")
    with pytest.raises(InvalidSetting, match='expected "module:Class"'):
        registry.join("b", "other", "other")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vaee", 'unknown model "vaee": did you mean "vae"'),
        ("no_such_package.part:vae", 'no module "no_such_package"'),
        ("likely.no_such_part:vae", 'no module "likely.no_such_part"'),
        ("__main__:vae", "it stood in a script or a notebook; put it in a module of its own"),
        ("json:vae", 'json has no model "vae": it registers none'),
        ("likely.models:vaee", 'likely.models has no model "vaee": did you mean "vae"'),
        ("not a module:vae", 'expected a name, or "module:name"'),
        (":vae", 'expected a name, or "module:name"'),
    ],
)
def test_what_is_not_there_is_named(name: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(said)):
        entry(name)


def test_a_module_finds_its_own_names() -> None:
    assert entry("likely.models.vae.settings:vae") is MODELS["vae"]
    assert MODELS.of(MODELS["vae"].settings) is MODELS["vae"] is MODELS.of(MODELS["vae"].load())
    assert MODELS.of(Numbers) is None


def test_settings_of_a_model_are_a_dataclass() -> None:
    with pytest.raises(InvalidSetting, match="put @model above"):

        @model("no-dataclass", "package:Class")
        class Settings:
            """None."""


def test_a_module_that_lacks_another_one_says_which(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import no_such_dependency\n")
    code = "from likely.models import entry; entry('needy:logistic')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "ModuleNotFoundError: No module named 'no_such_dependency'" in done.stderr


def test_installed_packages_join_by_their_entry_point(tmp_path: Path) -> None:
    (tmp_path / "their_models.py").write_text(
        textwrap.dedent(
            """\
            import dataclasses
            from likely.models import model

            @model("theirs", "their_models:Theirs")
            @dataclasses.dataclass(frozen=True)
            class TheirSettings:
                \"\"\"A model of theirs.\"\"\"
                count: int = 1
            """
        )
    )
    (tmp_path / "broken_models.py").write_text("raise RuntimeError('no good')\n")
    for name in ("their", "broken"):
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[likely]\n{name} = {name}_models\n")
    code = "from likely.cli import main; main(['models']); main(['fit', 'theirs', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert re.search("^theirs +A model of theirs", done.stdout, re.MULTILINE)
    assert "--count" in done.stdout
    assert "broken_models cannot be imported: no good" in done.stderr


# -- what is recommended is accepted ------------------------------------------------------


def _options() -> set[str]:
    """Every option of the command."""
    found: set[str] = set()
    for name in COMMANDS:
        for word in module_of(name).COMMAND.choices() or [None]:
            found |= set(build(name, word).known())
    return found


def test_every_option_that_a_sentence_recommends_exists() -> None:
    options = _options() | {"--version", "--help"}
    assert len(options) > 100
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) in docstrings or "var(--" in node.value:  # a style sheet
                    continue
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w*:-])", node.value):
                    assert option in options, f"{path}: {option}"


def test_every_model_objective_and_head_that_is_recommended_is_accepted() -> None:
    parser = build("fit", "vae")
    for option, registry in (("--objective", OBJECTIVES), ("--head", HEADS)):
        for name in registry:
            assert getattr(parser.read([option, name]), option[2:]) == name
        with pytest.raises(InvalidSetting, match="did you mean"):
            parser.read([option, next(iter(registry)) + "s"])
    for path in [*PAGES, *SOURCES]:
        if path.name == "own-model.md":  # names of its own, and the tests run it
            continue
        text = path.read_text(encoding="utf-8")
        for registry, pattern in (
            (OBJECTIVES, r"(?:--objective ([a-z][a-z-]*[a-z])(?![\w:-])|^objective: ([a-z-]+)$)"),
            (HEADS, r"(?:--head |head=(?!head|self))([a-z][a-z-]*[a-z])(?![\w:-])"),
            (MODELS, r"\blikely fit ([a-z][a-z-]*[a-z])(?![\w:-])"),
        ):
            for match in re.finditer(pattern, text, re.MULTILINE):
                name = next(filter(None, match.groups()))
                known = {*registry, *SEQUENCE_MODELS} if registry is MODELS else registry
                assert name in known, f"{path}: {name}"


def test_every_setting_of_an_objective_is_accepted_by_every_model() -> None:
    for name in MODELS:
        fields = fields_of(MODELS[name])
        assert {f.name for f in objective_fields()} <= set(fields)


@pytest.mark.parametrize("name", [e.name for e in MODELS.values() if e.home.startswith("likely.")])
def test_a_model_takes_fields_of_its_settings_by_name(name: str) -> None:
    registered = entry(name)
    spec = DataSpec("toy", (3 if name in COLOUR else 1, 4, 4), 2)
    preset = registered.preset(spec)
    field = next(f.name for f in dataclasses.fields(preset) if type(getattr(preset, f.name)) is int)
    changed = dataclasses.replace(preset, **{field: getattr(preset, field)})
    kind = registered.load()
    assert kind(spec, **{field: getattr(preset, field)}).settings == changed
    assert kind(spec, preset, **{field: getattr(preset, field)}).settings == changed
    with pytest.raises(InvalidSetting, match="did you mean"):
        kind(spec, **{f"{field}s": 1})


def test_fields_by_name_leave_the_others_as_the_preset_has_them() -> None:
    spec = DataSpec("toy", (1, 8, 8), 17)
    preset = VAESettings.preset(spec)
    assert VAE(spec, latent=2).settings == dataclasses.replace(preset, latent=2)
    assert VAE(spec, VAESettings(), latent=2).settings == VAESettings(latent=2)
    assert VAE(spec=spec, latent=2).settings.latent == 2
