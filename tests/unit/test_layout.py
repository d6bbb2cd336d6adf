"""The folders import only what they may, and importing the package loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "momentkit"

MAY_IMPORT = {
    "core": set(),
    "video": {"core"},
    "features": {"core", "video"},
    "data": {"core", "features.store", "features.base", "features.words", "features.hdf5"},
    "nn": {"core"},
    "diffusion": {"core"},
    "losses": {"core", "nn.masks"},
    "models": {"core", "nn", "diffusion", "losses"},
    "predict": {"core", "video", "features", "models"},
    "metrics": {"core.errors", "core.files"},
    "train": {"core", "data", "features", "models", "predict", "metrics"},
    "convert": {"core", "models", "features"},  # features: encoders whose network is ours
    "verify": {"core", "data", "nn", "diffusion", "losses", "models", "predict", "metrics", "convert"},
    "cli": {
        "core",
        "video",
        "features",
        "data",
        "models",
        "predict",
        "metrics",
        "train",
        "convert",
        "verify",
        "version",
    },
}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def imported(path: Path) -> set[str]:
    """Full names of our modules that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            module = node.module or ""
            names |= (
                {f"{module}.{alias.name}" for alias in node.names}
                if module in ("momentkit", "momentkit.cli", "momentkit.models")
                else {module}
            )
    return {name.removeprefix("momentkit.") for name in names if name.startswith("momentkit.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_what_its_folder_may(path: Path) -> None:
    folder = path.relative_to(SOURCE).parts[0]
    allowed = {folder, *MAY_IMPORT[folder]}
    wrong = {
        name
        for name in imported(path)
        if not any(name == entry or name.startswith(f"{entry}.") for entry in allowed)
    }
    assert not wrong, f"{folder} must not import {sorted(wrong)}"


def test_a_model_imports_no_other_model_but_may_build_on_the_familys_frame() -> None:
    for path in (SOURCE / "models").glob("*.py"):
        if path.stem not in ("registry", "__init__"):
            others = {name for name in imported(path) if name == "models" or name.startswith("models.")}
            assert others <= ({"models.family"} if path.stem != "family" else set()), path.name


def test_only_the_converter_unpickles() -> None:
    forbidden = {"pickle", "eval", "exec", "__import__", "os.system"}
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in forbidden or called in ("torch.load", "pickle.loads", "pickle.load", "yaml.load"):
                assert path.parent.name == "convert" and "weights_only=True" in ast.unparse(node), (
                    f"{path}: {called}"
                )
            for keyword in getattr(node, "keywords", []):
                unsafe = (keyword.arg, ast.unparse(keyword.value))
                assert unsafe not in (
                    ("allow_pickle", "True"),
                    ("weights_only", "False"),
                    ("shell", "True"),
                ), path


def test_importing_the_package_is_fast_and_loads_neither_torch_nor_av() -> None:
    code = (
        "import time, sys; start = time.perf_counter(); import momentkit;"
        "seconds = time.perf_counter() - start;"
        "print(seconds, 'torch' in sys.modules, 'av' in sys.modules)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, *loaded = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(loaded[0]) == {"False"} and set(loaded[1]) == {"False"}
    assert min(map(float, seconds)) < 0.2


def test_help_and_version_load_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from momentkit.cli.main import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
