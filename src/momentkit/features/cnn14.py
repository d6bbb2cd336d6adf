"""PANNs Cnn14, the sound encoder behind the field's "PANN" features: 2048 channels a clip.

    samples (32 kHz) -- log-mel (W,64) -- normalise bands -- 6 blocks of two 3 x 3 convolutions, halved after
        each but the last -- mean over bands -- max + mean over time -- linear, ReLU -- embedding (2048)

Layer: the embedding before the classes. Each clip is encoded from its own samples alone; the published files
do not say which window they saw. A clip must last 0.32 s, else nothing is left after the halvings.

Parameter names and shapes are those of the authors' code (qiuqiangkong/audioset_tagging_cnn, `Cnn14`), whose
published file is `Cnn14_mAP=0.431.pth`; written down from knowledge of that release, not compared with the
file. With the classes' layer it has the 80,753,615 parameters that the paper states.

Shapes   B clips   S samples   W spectrogram frames   C channels
Source   Kong et al. 2020, table 1 (CNN14) and section 2
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from momentkit.core.config import build
from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError
from momentkit.features.mel import LogMel
from momentkit.features.network_file import fill, read_network

CNN14_NAME = "PANN CNN14"
FRONT_END = LogMel(sample_rate=32000, window=1024, hop=320, bands=64, lowest_hz=50, highest_hz=14000)
SHORTEST_S = 0.32


@dataclass(frozen=True, kw_only=True)
class Cnn14Config:
    """The defaults are the published network."""

    width: int = 64  # channels of the first block; doubled by each of the six
    embedding: int = 2048


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCWM: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(x_BCWM)).relu()
        return self.bn2(self.conv2(hidden)).relu()


class Cnn14(nn.Module):
    """The network up to its embedding, under the authors' parameter names.

    Args:
        config: sizes.
    """

    def __init__(self, config: Cnn14Config) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(FRONT_END.bands)
        widths = [1, *(config.width * 2**block for block in range(6))]
        for block in range(6):
            self.add_module(f"conv_block{block + 1}", ConvBlock(widths[block], widths[block + 1]))
        self.fc1 = nn.Linear(widths[-1], config.embedding)

    def forward(self, logmel_BWM: Tensor) -> Tensor:
        """(B, W, 64) decibels, W >= 32 -> (B, 2048)."""
        hidden = self.bn0(
            logmel_BWM.transpose(1, 2)[..., None]
        )  # each band by its own mean: bands are channels
        hidden = hidden.permute(0, 3, 2, 1)  # (B, 1, W, M)
        for block in range(1, 7):
            hidden = self.get_submodule(f"conv_block{block}")(hidden)
            if block < 6:
                hidden = nn.functional.avg_pool2d(hidden, 2)
        over_bands_BCW = hidden.mean(3)
        return self.fc1(over_bands_BCW.amax(2) + over_bands_BCW.mean(2)).relu()


class Cnn14Encoder:
    """Samples -> 2048 channels a clip; see `momentkit.features.base.SoundEncoder`.

    Args:
        network: in eval mode.
        revision: for the contract.
        clip_length_s: seconds a clip covers.
    """

    sample_rate = FRONT_END.sample_rate

    def __init__(self, network: Cnn14, revision: str, clip_length_s: float) -> None:
        if not clip_length_s >= SHORTEST_S:
            raise FeatureError(
                f"{CNN14_NAME} takes clips of at least {SHORTEST_S} s, got {clip_length_s:g} s"
            )
        self._network = network.eval().requires_grad_(False)
        self.clip_length_s = clip_length_s
        self.contract = StreamContract(
            encoder=CNN14_NAME,
            revision=revision,
            layer="embedding",
            dim=network.fc1.out_features,
            fps=1.0 / clip_length_s,
        )

    @classmethod
    def read(cls, path: str | Path, *, clip_length_s: float = 2.0, device: str = "cpu") -> Self:
        """An encoder from its weights, as `momentkit features import` writes them.

        Raises:
            WeightsError: damaged, or the weights of something else.
        """
        options, tensors, revision = read_network(path, CNN14_NAME)
        network = Cnn14(build(Cnn14Config, options, str(path)))
        fill(network, tensors, path)
        return cls(network.to(device), revision, clip_length_s)

    @torch.no_grad()
    def encode_sound(self, samples_TS: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, S) samples of T clips, mono, in [-1, 1] -> (T, 2048) float32, raw."""
        samples = torch.from_numpy(np.ascontiguousarray(samples_TS)).to(self._network.fc1.weight.device)
        # One clip at a time: what stands beside it then cannot change the last bits.
        rows = [self._network(FRONT_END(clip_S[None])) for clip_S in samples]
        return torch.cat(rows).float().cpu().numpy()


def options_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """The sizes of a network, read off its parameters."""
    return asdict(
        Cnn14Config(
            width=len(state["conv_block1.conv1.weight"]),
            embedding=len(state["fc1.weight"]),
        )
    )
