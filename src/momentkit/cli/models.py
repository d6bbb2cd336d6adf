"""`momentkit models`: the models there are, and the weights that come with the package."""

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from momentkit.core.weights import WeightsCard


def command() -> None:
    """List the models, and the bundled weights with their figures."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from momentkit.core.weights import read_weights
    from momentkit.models.registry import list_models
    from momentkit.predict.weights import bundled_weights

    console = Console()
    table = Table("model", "parameters", "what it does", "paper", title="Models", title_justify="left")
    table.columns[1].justify = "right"
    for name in list_models():
        table.add_row(name, *_describe(name))
    console.print(table)
    found = bundled_weights()
    console.print(Text("\nBundled weights" if found else "\nNo bundled weights", style="italic"))
    for name, path in found.items():
        card = read_weights(path)[0]
        console.print(Text(f"{name}: {card.model}, {path.stat().st_size / 1e6:.1f} MB", style="bold"))
        for line in _card_lines(card):
            console.print(Padding(Text(line), (0, 0, 0, 2)))


def _describe(name: str) -> tuple[str, str, str]:
    """Parameters with the default options; the idea and the source, as the model's file states them."""
    import torch

    from momentkit.models.registry import build_model

    with torch.device("meta"):  # shapes without numbers
        model = build_model(name, {})
    count = sum(parameter.numel() for parameter in model.parameters())
    document = sys.modules[type(model).__module__].__doc__ or ""
    source = re.search(r"^Source\s+(.*?\d{4}\b)", document, re.MULTILINE | re.DOTALL)
    paper = " ".join(source[1].split()) if source else ""
    return f"{count / 1e6:.1f} M", document.strip().splitlines()[0], paper


def _card_lines(card: "WeightsCard") -> Iterator[str]:
    if card.features is not None:
        streams = (*card.features.video, card.features.text)
        names = " + ".join(stream.encoder for stream in streams)
        yield f"needs {names}, clips of {card.features.clip_length_s:g} s"
    if card.trained_on:
        yield f"trained on {card.trained_on}" + (f" (licence: {card.licence})" if card.licence else "")
    if card.metrics:
        figures = ", ".join(f"{figure} {value:g}" for figure, value in card.metrics.items())
        yield f"measured on {card.measured_on or 'an unnamed set'}: {figures}"
    if card.presence is not None:
        yield f"says when a sentence does not occur; fitted on {card.presence.fitted_on}"
    if card.notes:
        yield card.notes
