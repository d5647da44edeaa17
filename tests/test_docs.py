"""Every code block of README and docs: Python runs, shell commands run or are checked.

A page's blocks share one namespace and one folder that holds the files they speak of: photo.jpg,
probabilities.npy, my-folder (images and labels) and a tiny VOCdevkit. Training recipes are cut to
one step. A block whose title says "Not run by the tests: why" is only compiled, or its commands
parsed.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from skimage import data

from napari_deepcrf.cli.app import app
from napari_deepcrf.cli.app import main as command_line

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "bash", "powershell", "toml", "json", "text"}
OPTIONAL = {"pydensecrf", "matplotlib"}
"""What pages show, and the package's tests do without."""
NOT_RUN = re.compile(r'title="Not run by the tests: [^"]{10,}"')
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_WITHOUT_FENCE = re.compile(
    r"^    (import |from \w+ import |napari-deepcrf |python |pip |make |torchrun )", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split(" ")[0]

    @property
    def runs(self) -> bool:
        return NOT_RUN.search(self.info) is None

    def compiled(self) -> Any:
        """Python code whose tracebacks name the page and its line."""
        return compile("\n" * self.line + self.text, str(self.page), "exec")


def blocks_of(page: Path, *languages: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        block = Block(page, text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2])
        if not languages or block.language in languages:
            found.append(block)
    return found


def commands_of(block: Block) -> list[list[str]]:
    """The words of every command, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    commands = [part for line in lines for part in re.split(r" (?:&&|\|) ", line)]
    words = [shlex.split(command, comments=True) for command in commands]
    return [command for command in words if command]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages_with(*languages: str) -> list[Any]:
    return [pytest.param(p, id=name(p)) for p in PAGES if blocks_of(p, *languages)]


# ---- what the blocks find ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a page's blocks."""
    cat = data.chelsea()[::4, ::4]
    Image.fromarray(cat).save(tmp_path / "photo.jpg")
    probabilities = np.full((2, *cat.shape[:2]), 0.2, np.float32)
    probabilities[0, :30] = probabilities[1, 30:] = 0.8
    np.save(tmp_path / "probabilities.npy", probabilities)
    own, voc = tmp_path / "my-folder", tmp_path / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    for path in (own / "images", own / "labels", voc / "JPEGImages", voc / "SegmentationClass"):
        path.mkdir(parents=True)
    lists.mkdir(parents=True)
    labels = np.zeros(cat.shape[:2], np.uint8)
    labels[:20], labels[40:] = 1, 2
    for stem in ("first", "second"):
        Image.fromarray(cat).save(own / "images" / f"{stem}.png")
        Image.fromarray(labels).save(own / "labels" / f"{stem}.png")
        Image.fromarray(cat).save(voc / "JPEGImages" / f"{stem}.jpg")
        Image.fromarray(labels * 4).save(voc / "SegmentationClass" / f"{stem}.png")
    for split in ("train", "val", "train_aug"):
        (lists / f"{split}.txt").write_text("first\nsecond\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


@pytest.fixture(autouse=True)
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every named recipe takes one step a stage, on small crops."""
    from napari_deepcrf.training import config

    for key, recipe in config._CONFIGS.items():
        unary, joint, scribbles = recipe.unary, recipe.joint, recipe.scribbles
        if unary is not None:
            crop = replace(unary.augmentation, crop=65)
            unary = replace(unary, iterations=1, batch_size=2, augmentation=crop, workers=0)
        if joint is not None:
            joint = replace(joint, iterations=1, batch_size=1)
        if scribbles is not None:
            scribbles = replace(scribbles, rounds=1, iterations=1, taught_pixels=200)
        short = replace(recipe, unary=unary, joint=joint, scribbles=scribbles)
        monkeypatch.setitem(config._CONFIGS, key, short)


@pytest.fixture
def windows() -> Iterator[None]:
    """Closes the viewers that a block has opened."""
    yield
    napari = sys.modules.get("napari")
    if napari is not None:
        napari.Viewer.close_all()


# ---- the blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [pytest.param(p, id=name(p)) for p in PAGES])
def test_code_is_fenced_and_names_its_language(page: Path) -> None:
    unknown = [f"line {b.line}: {b.info!r}" for b in blocks_of(page) if b.language not in LANGUAGES]
    assert not unknown
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not CODE_WITHOUT_FENCE.findall(outside)


@pytest.mark.parametrize("page", pages_with("python", "bash", "powershell"))
def test_blocks_run(
    page: Path,
    folder: Path,
    windows: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the top of the page to its end, as a reader would."""
    blocks = blocks_of(page, "python", "bash", "powershell")
    imported = {
        name for b in blocks for name in re.findall(r"^(?:from|import) (\w+)", b.text, re.M)
    }
    for module in sorted(imported & OPTIONAL):
        pytest.importorskip(module)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "python":
            code = block.compiled()
            if block.runs:
                exec(code, namespace)
            continue
        for program, *arguments in commands_of(block):
            program = re.sub(r"^(\.venv/bin/|\.venv\\Scripts\\)", "", program)
            assert program in CHECKS, f"line {block.line}: no check for the command {program}"
            CHECKS[program](arguments, page)
            # The demo opens a window of its own, and has a test of its own.
            if program == "napari-deepcrf" and block.runs and arguments[0] not in ("demo", "bench"):
                monkeypatch.setattr(sys, "argv", [program, *arguments])
                with pytest.raises(SystemExit) as ended:
                    command_line()
                assert not ended.value.code, (arguments, capsys.readouterr().err)


def test_messages_of_troubleshooting_are_those_of_the_code() -> None:
    """Every part of a message of ours, between its …, is a text in the sources."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    ours = text.partition("## Messages of others")[0]
    sources = "\n".join(string_constants())
    rows = [line.split("|")[1] for line in ours.splitlines() if line.startswith("| `")]
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    parts = [part.strip() for message in messages for part in message.split("…")]
    assert len(parts) > 50
    assert not [part for part in parts if part not in sources]


def string_constants() -> Iterator[str]:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_picture_shows_every_layer() -> None:
    """docs/figures/layers.py draws it anew."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (entry["layers"] for entry in contracts if entry["type"] == "layers")
    names = re.findall(r"napari_deepcrf\.(\w+)", " ".join(layers))
    picture = (ROOT / "docs" / "images" / "layers.svg").read_text(encoding="utf-8")
    assert [name for name in names if f">{name}<" not in picture] == []


# ---- checks of commands ------------------------------------------------------------------------


def check_own(arguments: list[str], page: Path) -> None:
    """The command line takes these arguments."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("napari-deepcrf", list(arguments), resilient_parsing=True)
    command = group.get_command(context, arguments[0])
    assert command is not None, f"no such command: {arguments[0]}"
    if "--help" not in arguments:
        command.make_context(arguments[0], list(arguments[1:]), parent=context)


def check_pip(arguments: list[str], page: Path) -> None:
    """The extras exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:napari-deepcrf|\.|\.whl)\[([\w,-]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def check_make(arguments: list[str], page: Path) -> None:
    """The target exists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def check_python(arguments: list[str], page: Path) -> None:
    """The script or module exists, and its text has the options."""
    if not arguments or arguments[0] in ("-c", "--version"):
        return
    if arguments[0] == "-m":
        module, rest = arguments[1], arguments[2:]
        assert find_spec(module), module
        if module == "pip":
            check_pip(rest, page)
        elif module == "napari_deepcrf.cli":
            check_own(rest, page)
        return
    places = (ROOT / arguments[0], page.parent / arguments[0])
    script = next((path for path in places if path.is_file()), None)
    assert script is not None, f"no such script: {arguments[0]}"
    text = script.read_text(encoding="utf-8")
    for option in (word for word in arguments[1:] if word.startswith("--")):
        assert f'"{option}"' in text, f"{arguments[0]} has no option {option}"


def check_after(arguments: list[str], page: Path) -> None:
    """The rest of the line, after a launcher and its own options, is a command of ours."""
    while arguments and arguments[0].startswith("-") and arguments[0] != "-m":
        takes_value = arguments[0].startswith("--") and "=" not in arguments[0]
        arguments = arguments[2 if takes_value else 1 :]
    if arguments[0] in CHECKS:
        CHECKS[arguments[0]](arguments[1:], page)
    else:
        check_python(arguments, page)


def check_nothing(arguments: list[str], page: Path) -> None:
    """A program of the system."""


CHECKS: dict[str, Callable[[list[str], Path], None]] = {
    "napari-deepcrf": check_own,
    "pip": check_pip,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "py": check_python,
    "torchrun": check_after,
    "xvfb-run": check_after,
    **dict.fromkeys(("cd", "dask", "export", "git", "napari", "pre-commit"), check_nothing),
}
