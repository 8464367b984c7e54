"""Plug-ins: recipes, data sets, protocols and augmentations from outside the package.

A plug-in is one Python file, given by `--plugin FILE.py` or `vireid.plugin(FILE)`. What it holds depends on the names
in it. One file may hold several kinds:

    PAPER, ROWS, build       a recipe, called like the file
    read, FOLDS, EXPECTED    a data set, called like the file with hyphens; see `vireid.datasets`
    PROTOCOLS                a list of `vireid.data.protocol.Protocol`
    AUGMENTATIONS            name → `vireid.augment.Added`

An installed package offers the same in its modules, by entry points `vireid.recipes`, `vireid.datasets`,
`vireid.protocols` (by the name of the layout) and `vireid.augment`.

A plug-in is code, and it runs with the rights of the user. It is executed only if it is named on the command line, or
installed and asked for by its name. A run keeps a copy of each plug-in that it was trained with. The copy is not
executed unless the user names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vireid import augment, datasets, recipes
from vireid.data import outside, protocol
from vireid.data.errors import BadInput
from vireid.data.outside import Outside
from vireid.data.stored import writing
from vireid.training.run import PluginFacts, Run, RunFacts

FOLDER = "plugins"
"""Where a run keeps the copies."""

_held: dict[str, tuple[str, ...]] = {}


def plugin(file: str | Path) -> ModuleType:
    """Execute a plug-in and make known what it holds. A file that has changed since the last call is executed again.

    Args:
        file: `my_recipe.py`. Its name is the name of the recipe.

    Returns:
        The module.

    Raises:
        BadInput: the file cannot be read, raises an exception, holds nothing that vireid knows, or uses a name that is
            taken. Then nothing of it is known.
    """
    found = outside.load_file(file)
    before = _held.pop(str(found.file), ())
    _forget(before)
    done: list[str] = []
    try:
        _register(found, done)
    except BadInput as error:
        _forget(done)
        raise BadInput(f"plug-in {file}: {error}") from None
    if not done:
        raise BadInput(
            f"plug-in {file} holds no recipe (PAPER, ROWS, build), data set (read, FOLDS, EXPECTED), PROTOCOLS or "
            "AUGMENTATIONS"
        )
    _held[str(found.file)] = tuple(done)
    return found.module


def _register(found: Outside, done: list[str]) -> None:
    """Make known what a file holds, and note it in `done` as soon as it is."""
    module, layout = found.module, found.name.replace("_", "-")
    if hasattr(module, "PAPER") or hasattr(module, "build"):
        recipes.register(found.name, module)
        done.append(f"recipe {found.name}")
    given = getattr(module, "PROTOCOLS", ())
    if hasattr(module, "FOLDS") or hasattr(module, "EXPECTED"):
        datasets.register(layout, module)
        done += [f"layout {layout}", *(f"protocol {name}" for name in protocol.protocol_names(layout))]
        given = [one for one in given if getattr(one, "layout", None) != layout]
    for one in given:
        protocol.register([one], getattr(one, "layout", layout))
        done.append(f"protocol {one.name}")
    added = getattr(module, "AUGMENTATIONS", {})
    augment.register(added)
    done += [f"augmentation {name}" for name in added]


def _forget(held: Sequence[str]) -> None:
    """Remove what a file held."""
    pairs = [one.split(" ", 1) for one in held]
    rooms = {"recipe": recipes.forget, "layout": datasets.forget, "augmentation": augment.forget}
    rooms["protocol"] = protocol.forget
    for kind, name in pairs:
        rooms[kind]([name] if kind in ("augmentation", "protocol") else name)  # type: ignore[arg-type]


def files() -> tuple[Path, ...]:
    """The plug-ins that were named, for a process that is to know the same: `--plugin FILE` for each."""
    return tuple(one.file for one in outside.loaded() if not one.package)


def facts() -> tuple[PluginFacts, ...]:
    """What a run records of the plug-ins of this process: those that were named, and the entry points it used."""
    return tuple(
        PluginFacts(one.name, str(one.file), one.sha256, _held.get(str(one.file), ()), one.package)
        for one in outside.loaded()
    )


def keep(run: Path) -> None:
    """Copy the plug-ins of this process into a run directory, each with the YAML file of its rows, if it has one.

    Raises:
        BadInput: the directory cannot be written.
    """
    for one in outside.loaded():
        target = run / FOLDER / f"{one.name}.py"
        try:
            target.parent.mkdir(exist_ok=True)
            with writing(target) as copy:
                copy.write(one.source)
            rows = one.file.with_suffix(".yaml")
            if rows.is_file():
                with writing(target.with_suffix(".yaml")) as copy:
                    copy.write(rows.read_bytes())
        except OSError as error:
            raise BadInput(f"plug-in {one.file} cannot be copied to {target}: {error.strerror}") from None


def require(run: Run, data: str = "") -> tuple[str, ...]:
    """Check that the plug-ins are there that a run needs, before anything of it is used.

    Args:
        run: the run.
        data: `LAYOUT:PATH` that it is used with, if any.

    Returns:
        A warning for each plug-in that is not the one that the run was trained with.

    Raises:
        BadInput: a plug-in is missing. The sentence says which file it is, and how to give it.
    """
    base, *added = run.facts.recipe.split("+")
    wanted = {f"layout {data.partition(':')[0]}"}
    if not run.exported:  # an exported model runs without the code of its recipe
        wanted |= {f"recipe {base}", *(f"augmentation {name}" for name in added)}
    there = {one.name: one for one in outside.loaded()}
    warnings = []
    for one in run.facts.plugins:
        now = there.get(one.name)
        if now is None:
            if not one.package and wanted & set(one.holds):
                raise BadInput(_missing(run, one))
        elif now.sha256 != one.sha256:
            warnings.append(
                f"plug-in {now.file} (sha256 {now.sha256[:12]}) is not the one that the run was trained with "
                f"({one.sha256[:12]}); its copy is {_copy(run, one)}"
            )
    return tuple(warnings)


def _missing(run: Run, one: PluginFacts) -> str:
    return (
        f"{run.path} was trained with the plug-in {one.file} (sha256 {one.sha256[:12]}), which is code and is executed "
        f"only if you name it: add --plugin {_copy(run, one)} (in Python, call vireid.plugin with this file first)"
    )


def _copy(run: Run, one: PluginFacts) -> Path:
    return run.path / FOLDER / f"{one.name}.py"


def check_resumed(directory: Path, old: RunFacts, new: RunFacts) -> None:
    """Refuse to go on with a run by other code than it began with.

    Raises:
        BadInput: a plug-in that the run began with is missing now, or is not the same.
    """
    now = {one.name: one for one in new.plugins}
    run = Run(directory, old)
    for one in old.plugins:
        if one.name not in now:
            raise BadInput(_missing(run, one))
        if now[one.name].sha256 != one.sha256:
            raise BadInput(
                f"{directory} was begun with another {one.name}.py (sha256 {one.sha256[:12]}; now "
                f"{now[one.name].sha256[:12]}); give --plugin {_copy(run, one)}, or another --run"
            )


def recipe_of(run: Run) -> Any:
    """The recipe of a run.

    Raises:
        BadInput: it comes from a plug-in that was not given, or there is no such recipe.
    """
    require(run)
    return recipes.recipe(run.facts.recipe)
