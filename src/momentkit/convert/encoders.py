"""Published weights of encoders whose network is ours (SlowFast, PANNs Cnn14) -> our safetensors.

SlowFast's file of the model zoo is a Caffe2 pickle of numpy arrays under Caffe2's names (the release's own
loader renames them); files of its later training code are torch checkpoints. Neither is unpickled as such:
the first is read by an unpickler that knows numpy's arrays only and builds them itself, the second by torch's
restricted one. The names were written down from knowledge of that release, not compared with its file.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from momentkit.convert.checkpoint import read_checkpoint
from momentkit.core.errors import ConfigError, WeightsError
from momentkit.core.files import sha256
from momentkit.core.weights import MAX_WEIGHTS_BYTES, WeightsCard, save_weights
from momentkit.features.cnn14 import CNN14_NAME, FRONT_END, Cnn14, Cnn14Config
from momentkit.features.cnn14 import options_of as cnn14_options
from momentkit.features.network_file import fill
from momentkit.features.slowfast import SLOWFAST_NAME, SlowFast, SlowFastConfig
from momentkit.features.slowfast import options_of as slowfast_options

# Caffe2's name -> the authors' torch name, tried in this order; `t_` is the fast pathway.
_CAFFE2 = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"t_pool1_subsample_(bn_)?(\w+)", r"s1_fuse.\1\2"),
        (r"t_res(\d)_\d+_branch2c_bn_subsample_(bn_)?(\w+)", r"s\1_fuse.\2\3"),
        (r"t_(?:res_)?conv1_(bn_)?(\w+)", r"s1.pathway1_stem.\1\2"),
        (r"(?:res_)?conv1_(bn_)?(\w+)", r"s1.pathway0_stem.\1\2"),
        (r"t_res(\d)_(\d+)_branch2([abc])_(bn_)?(\w+)", r"s\1.pathway1_res\2.branch2.\3|\4\5"),
        (r"res(\d)_(\d+)_branch2([abc])_(bn_)?(\w+)", r"s\1.pathway0_res\2.branch2.\3|\4\5"),
        (r"t_res(\d)_(\d+)_branch1_(bn_)?(\w+)", r"s\1.pathway1_res\2.branch1|\3\4"),
        (r"res(\d)_(\d+)_branch1_(bn_)?(\w+)", r"s\1.pathway0_res\2.branch1|\3\4"),
    )
]
_ENTRIES = {
    "w": "weight",
    "bn_s": "bn.weight",
    "bn_b": "bn.bias",
    "bn_rm": "bn.running_mean",
    "bn_riv": "bn.running_var",
}


def import_encoder(path: str | Path, encoder: str, output: str | Path) -> WeightsCard:
    """Read an encoder's published weights, check them against our network, write our file.

    Args:
        path: the published file.
        encoder: "slowfast" or "cnn14".
        output: a .safetensors path.

    Raises:
        WeightsError: damaged, hostile, or not that network's; nothing is written.
    """
    if encoder not in _READERS:
        raise ConfigError(f"nothing to import for {encoder!r}; there are {', '.join(_READERS)}")
    if Path(output).suffix != ".safetensors":
        raise ConfigError(f"the output must end in .safetensors, got {output}")
    name, state, options, network = _READERS[encoder](Path(path))
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):  # a count of training steps that Caffe2 does not keep
            state[key] = torch.zeros_like(value)
    fill(network, state, path)
    if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
        raise WeightsError(f"{path}: {broken[0]} holds a number that is not finite")
    card = WeightsCard(
        model=name,
        options=options,
        trained_on="as its authors state",
        licence="as its authors state",
        notes=f"from {Path(path).name}, sha256 {sha256(path)}",
    )
    save_weights(output, state, card)
    return card


_Read = tuple[str, dict[str, Tensor], dict[str, Any], torch.nn.Module]


def _slowfast(path: Path) -> _Read:
    blobs = read_caffe2(path)
    state = rename_caffe2(blobs) if blobs is not None else _torch_slowfast(path)
    try:
        options = slowfast_options(state)
    except (KeyError, ZeroDivisionError) as error:
        raise WeightsError(f"{path} is no SlowFast network: it lacks {error}") from error
    return SLOWFAST_NAME, state, options, SlowFast(SlowFastConfig(**options))


def _torch_slowfast(path: Path) -> dict[str, Tensor]:
    state = _state_of(path, "model_state")
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def _cnn14(path: Path) -> _Read:
    """The published file also holds its front end and the classes' layer: the first must be ours."""
    state = _state_of(path, "model")
    kept = {
        name: value
        for name, value in state.items()
        if not name.startswith(("spectrogram_extractor.", "logmel_extractor.", "fc_audioset."))
    }
    bank = state.get("logmel_extractor.melW")
    ours = torch.from_numpy(FRONT_END.filters()).float()
    if bank is not None and (bank.shape != ours.shape or not (bank - ours).abs().max() <= 1e-5):
        raise WeightsError(
            f"{path} was trained with another mel filter bank than Cnn14 at {FRONT_END.sample_rate} Hz; "
            "fetch Cnn14_mAP=0.431.pth"
        )
    try:
        options = cnn14_options(kept)
    except KeyError as error:
        raise WeightsError(f"{path} is no Cnn14 network: it lacks {error}") from error
    return CNN14_NAME, kept, options, Cnn14(Cnn14Config(**options))


_READERS: dict[str, Callable[[Path], _Read]] = {"slowfast": _slowfast, "cnn14": _cnn14}


def _state_of(path: Path, key: str) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # whatever the parser meets first
            raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    return read_checkpoint(path, key)


def rename_caffe2(blobs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The weights under the authors' torch names; the classes' layer and the solver's state are left out."""
    state = {}
    for blob, values in blobs.items():
        for pattern, put in _CAFFE2:
            if match := pattern.fullmatch(blob):
                name = _torch_name(match.expand(put))
                if name:
                    state[name] = torch.from_numpy(np.array(values, np.float32))
                break
    return state


def _torch_name(draft: str) -> str:
    """ "s2.pathway0_res0.branch2.a|bn_s" -> "s2.pathway0_res0.branch2.a_bn.weight"; "" for solver state."""
    head, bar, entry = draft.partition("|")
    if not bar:  # stems and fusions: "s1_fuse.bn_s", "s1.pathway0_stem.w"
        head, _, entry = draft.rpartition(".")
    if entry not in _ENTRIES:
        return ""
    written = _ENTRIES[entry]
    if bar:
        return f"{head}_{written}" if written.startswith("bn.") else f"{head}.{written}"
    convolution = "conv_f2s" if head.endswith("_fuse") else "conv"
    return f"{head}.{written}" if written.startswith("bn.") else f"{head}.{convolution}.{written}"


def read_caffe2(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of a Caffe2 pickle, {"blobs": {name: array}}; None where the file is something else.

    Raises:
        WeightsError: it is one, and asks for a class that could run code, or is damaged.
    """
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_WEIGHTS_BYTES} are read"
            )
        with path.open("rb") as file:
            if file.read(2) == b"PK":  # the zip of a torch checkpoint
                return None
            file.seek(0)
            content = _ArraysOnly(file, encoding="latin1").load()
        blobs = content.get("blobs") if isinstance(content, dict) else None
        if not isinstance(blobs, dict):
            return None  # an old torch checkpoint begins with a pickled number
        return {str(name): blob.array() for name, blob in blobs.items() if isinstance(blob, _Array)}
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its parser meets first
        raise WeightsError(f"{path} is refused: {error}; nothing was executed or written") from error


class _DType:
    """Stands for numpy.dtype: remembers the letters."""

    def __init__(self, letters: str = "", *_: Any) -> None:
        self.letters, self.order = letters, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])


class _Array:
    """Stands for numpy.ndarray: remembers shape, type and bytes, and makes the array itself."""

    def __init__(self, *_: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def array(self) -> np.ndarray:
        """The array; only plain numbers are made."""
        _, shape, dtype, fortran, data = self._state
        if not (isinstance(dtype, _DType) and re.fullmatch(r"[fiu][1248]", dtype.letters)):
            raise pickle.UnpicklingError("it holds an array of something else than numbers")
        raw = data.encode("latin1") if isinstance(data, str) else data
        order = ">" if dtype.order == ">" else "<"
        values = np.frombuffer(raw, f"{order}{dtype.letters}")
        return values.reshape(shape, order="F" if fortran else "C")


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Stands for _codecs.encode, by which Python 3 writes bytes into pickles of protocol 2."""
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Knows stand-ins for numpy's arrays; any other class is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return cast(Any, _Array)
        known = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _DType, ("_codecs", "encode"): _encoded}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")
        return known[module, name]
