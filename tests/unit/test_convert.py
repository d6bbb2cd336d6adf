"""Authors' checkpoints become ours; nothing in them runs."""

import argparse
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from momentkit.convert.architecture import OPTIONS
from momentkit.convert.checkpoint import convert, read_checkpoint
from momentkit.convert.keys import rename
from momentkit.core.errors import WeightsError
from momentkit.core.weights import read_weights
from momentkit.models.registry import build_model

PARITY = Path(__file__).parents[1] / "parity" / "flashvtg"


def authors_checkpoint(path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the authors write it: a state beside an argparse namespace that holds an nncore Config."""
    module = types.ModuleType("nncore.utils.config")

    class Config(dict):  # type: ignore[type-arg]
        pass

    Config.__module__, Config.__qualname__ = "nncore.utils.config", "Config"
    module.Config = Config  # type: ignore[attr-defined]
    for name in ("nncore", "nncore.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "nncore.utils.config", module)
    options = argparse.Namespace(
        hidden_dim=32, cfg=Config(model={"strides": [1, 2]}), device=torch.device("cpu")
    )
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 3, "opt": options}, path)
    monkeypatch.undo()
    return path


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return load_file(PARITY / "model_mr.safetensors")


def test_an_authors_checkpoint_becomes_our_weights(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = authors_checkpoint(tmp_path / "model_best.ckpt", state, monkeypatch)
    convert(checkpoint, "flashvtg", tmp_path / "ours.safetensors")
    card, tensors = read_weights(tmp_path / "ours.safetensors")
    assert card.options["strides"] == [1, 2, 4, 8] and card.options["dummies"] == 5
    build_model("flashvtg", card.options).load_state_dict(tensors)
    assert torch.equal(tensors["mix"], state["x"])


SHAPES = json.loads((PARITY / "checkpoint_shapes.json").read_text())


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_published_configuration_fits_our_network(name: str) -> None:
    stored = {key: torch.empty(shape, device="meta") for key, shape in SHAPES[name]["shapes"].items()}
    state = rename(stored, "flashvtg")
    with torch.device("meta"):
        network = build_model("flashvtg", OPTIONS["flashvtg"](state))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in state.items()}
    unused = sum(value.numel() for key, value in stored.items() if key.startswith("txt_position_embed."))
    ours = sum(value.numel() for value in network.parameters())
    assert ours + unused == SHAPES[name]["n_parameters"]


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return exec, (f"open({str(self.canary)!r}, 'w').write('ran')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, zipped: bool, state: dict[str, torch.Tensor]) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    content = {"model": state, "opt": Hostile(canary)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"opt": Hostile(canary)}))
    with pytest.raises(WeightsError, match="refused"):
        convert(path, "flashvtg", tmp_path / "ours.safetensors")
    assert not canary.exists() and not (tmp_path / "ours.safetensors").exists()


def test_an_unknown_parameter_is_refused_by_name(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"model": state | {"surprise.weight": torch.ones(2)}}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=r"surprise\.weight"):
        convert(tmp_path / "a.ckpt", "flashvtg", tmp_path / "ours.safetensors")


def test_missing_and_misshapen_parameters_are_all_listed(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    del state["saliency_proj1.bias"]
    state["saliency_proj2.bias"] = torch.ones(3)
    torch.save({"model": state}, tmp_path / "a.ckpt")
    with pytest.raises(
        WeightsError, match=r"saliency_clip\.bias is missing; saliency_global\.bias has shape"
    ):
        convert(tmp_path / "a.ckpt", "flashvtg", tmp_path / "ours.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint|refused"):
        read_checkpoint(tmp_path / "a.ckpt")
