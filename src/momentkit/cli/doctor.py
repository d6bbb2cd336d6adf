"""`momentkit doctor`: what is installed, whether it is new enough, and whether it works on this machine."""

import importlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Literal

import typer

State = Literal["ok", "absent", "broken"]

# The floors follow from security advisories (torch, FFmpeg) and from what was tested.
REQUIRED = {
    "torch": "2.10",
    "av": "18.1",
    "numpy": "2.0",
    "scipy": "1.14",
    "pydantic": "2.10",
    "safetensors": "0.5",
    "typer": "0.15",
    "rich": "13.9",
}
EXTRAS = {
    "encoders": {"transformers": "4.57", "huggingface_hub": "0.34", "pillow": "11"},
    "train": {"accelerate": "1.10"},
}
FFMPEG_FLOOR = "8.1.2"
PYTHON_FLOOR, PYTHON_CEILING = (3, 11), (3, 13)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        found: what was seen.
        state: "absent" is no fault: something optional.
        advice: what would do; "" where all is well.
    """

    name: str
    found: str
    state: State = "ok"
    advice: str = ""


def command() -> None:
    """Check this installation: versions, decoder, bundled weights, machine; exit 1 if something is broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    findings = list(examine())
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "what would do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        mark = {"ok": Text("ok", "green"), "absent": Text("-"), "broken": Text("BROKEN", "bold red")}[
            finding.state
        ]
        table.add_row(mark, finding.name, Text(finding.found), Text(finding.advice))
    Console().print(table)
    broken = sum(finding.state == "broken" for finding in findings)
    if broken:
        print(f"{broken} broken: see above", file=sys.stderr)
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the report."""
    yield check_python(sys.version_info[:2])
    for package, floor in REQUIRED.items():
        yield check_package(package, floor)
    yield check_ffmpeg()
    yield check_decoding()
    for extra, packages in EXTRAS.items():
        for package, floor in packages.items():
            yield check_package(package, floor, extra=extra)
    with resources.as_file(resources.files("momentkit") / "assets") as folder:
        yield from check_weights(folder)
    yield check_cores()
    yield check_memory()
    yield check_gpu()


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "n8.1.2-3" -> (8, 1, 2)."""
    match = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def check_python(version: tuple[int, ...]) -> Finding:
    """The interpreter, between the versions that were tested."""
    good = PYTHON_FLOOR <= version <= PYTHON_CEILING
    wanted = f"use Python {PYTHON_FLOOR[0]}.{PYTHON_FLOOR[1]} to {PYTHON_CEILING[0]}.{PYTHON_CEILING[1]}"
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(
        name="python", found=found, state="ok" if good else "broken", advice="" if good else wanted
    )


def check_package(package: str, floor: str, *, extra: str = "") -> Finding:
    """A package: there, new enough, and importable; an extra's package may be absent."""
    install = f"pip install 'momentkit[{extra}]'" if extra else f"pip install '{package}>={floor}'"
    name = f"{package} ({extra})" if extra else package
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Finding(
            name=name, found="not installed", state="absent" if extra else "broken", advice=install
        )
    if version_tuple(version) < version_tuple(floor):
        upgrade = f"at least {floor} is needed: pip install --upgrade '{package}>={floor}'"
        return Finding(name=name, found=version, state="broken", advice=upgrade)
    if not extra:
        try:
            importlib.import_module(package)
        except Exception as error:  # whatever a half-installed package does, its name belongs into the report
            return Finding(
                name=name, found=f"{version}, import fails: {error}", state="broken", advice=install
            )
    return Finding(name=name, found=version)


def check_ffmpeg() -> Finding:
    """The FFmpeg inside PyAV: older ones have holes that a film can use."""
    try:
        import av

        version = str(av.ffmpeg_version_info)
        libraries = ", ".join(
            f"{name} {'.'.join(map(str, numbers))}" for name, numbers in sorted(av.library_versions.items())
        )
    except ImportError as error:
        return Finding(
            name="FFmpeg (in av)", found=str(error), state="broken", advice="pip install 'av>=18.1'"
        )
    good = version_tuple(version) >= version_tuple(FFMPEG_FLOOR)
    return Finding(
        name="FFmpeg (in av)",
        found=f"{version} ({libraries})",
        state="ok" if good else "broken",
        advice="" if good else f"at least {FFMPEG_FLOOR} is needed: pip install --upgrade av",
    )


def check_decoding() -> Finding:
    """Write a short H.264 film and read it back through the package's own reader."""
    name = "write and read a film"
    try:
        import av
        import numpy as np

        from momentkit.video.reader import open_video

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            with av.open(str(path), "w") as output:
                stream = output.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
                for level in (40, 200):
                    picture = np.full((64, 64, 3), level, np.uint8)
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                output.mux(stream.encode(None))
            with open_video(path) as reader:
                levels = [float(frame.mean()) for _, frame in reader.frames_at([0.0, 0.04])]
    except Exception as error:  # a self-test reports what fails, whatever it is
        return Finding(name=name, found=str(error), state="broken", advice="pip install --force-reinstall av")
    good = abs(levels[0] - 40) < 3 and abs(levels[1] - 200) < 3
    found = "H.264, two frames" if good else f"frames of brightness {levels}, not 40 and 200"
    advice = "" if good else "pip install --force-reinstall av"
    return Finding(name=name, found=found, state="ok" if good else "broken", advice=advice)


def check_weights(folder: Path) -> Iterator[Finding]:
    """Every bundled weights file, read whole and compared with its own checksum."""
    from momentkit.core.errors import WeightsError

    try:
        from momentkit.core.weights import read_weights
    except ImportError as error:
        yield Finding(name="bundled weights", found=f"cannot be read: {error}", state="broken")
        return
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        yield Finding(name="bundled weights", found="none", state="broken", advice="reinstall momentkit")
    for file in files:
        try:
            card, tensors = read_weights(file)
        except WeightsError as error:
            yield Finding(name=file.name, found=str(error), state="broken", advice="reinstall momentkit")
            continue
        count = sum(tensor.numel() for tensor in tensors.values())
        yield Finding(name=file.name, found=f"{card.model}, {count / 1e6:.2f} M parameters, checksum fits")


def check_cores() -> Finding:
    """Cores this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding(name="cores", found=str(usable))


def check_memory() -> Finding:
    """Memory of the machine, where the system says."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return Finding(name="memory", found="unknown", state="absent")
    return Finding(name="memory", found=f"{total / 1024**3:.1f} GiB")


def check_gpu() -> Finding:
    """The accelerator torch can use; none is no fault."""
    try:
        import torch
    except ImportError as error:
        return Finding(name="GPU", found=str(error), state="absent")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1024**3
        return Finding(name="GPU", found=f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Finding(name="GPU", found="Apple, through Metal")
    return Finding(name="GPU", found="none: the CPU does the work", state="absent")
