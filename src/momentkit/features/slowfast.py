"""SlowFast R50 8x8, the motion encoder of the field's "SF+C" features: 2304 channels a clip.

    32 frames of a clip --+-- every 4th (8 frames) -- slow pathway, width 64 -- mean -- 2048 --+-- 2304
                          |                              ^ fuse after s1 .. s4                 |
                          +-- all 32 ----------------- fast pathway, width 8 -- mean --  256 --+

Clip sampling: the clip's seconds at 30 frames a second, of which 32 evenly spread ones are taken:
floor(linspace(0, n - 1, 32)), n = 30 * seconds; slow: trunc(linspace(0, 31, 8)) of these. Frames: shorter
side to 256 (bicubic), centre 256, (x / 255 - 0.45) / 0.225. Layer: both pathways' mean over time and space,
side by side, before dropout and the classes' projection ("pool").

Parameter names and shapes are those of the authors' code (facebookresearch/SlowFast, SLOWFAST_8x8_R50); the
sampling is that of the extractor used for QVHighlights (HERO_Video_Feature_Extractor). Both were written down
from knowledge of these releases, not compared with them: compare your features of a few films with published
ones (`momentkit features compare`). With the classes' layer the network has 34,566,488 parameters; 34.6
million are published.

Shapes   B clips   C channels   F frames   H, W pixels   S side of the crop
Source   Feichtenhofer et al. 2019, table 1 and section 3
"""

from collections.abc import Sequence
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
from momentkit.features.network_file import fill, read_network
from momentkit.features.pictures import Preprocess

SLOWFAST_NAME = "facebookresearch/slowfast-r50-8x8"
SOURCE_FPS = 30  # frames a second that the 32 are picked from
FRAMES = 32
SIDE = 256


@dataclass(frozen=True, kw_only=True)
class SlowFastConfig:
    """The defaults are R50 8x8."""

    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of s2 .. s5
    width: int = 64  # slow channels of the stem
    alpha: int = 4  # fast frames for each slow one
    beta: int = 8  # slow channels for each fast one
    fuse_kernel: int = 7  # frames that the fusion's convolution sees

    def __post_init__(self) -> None:
        if self.width % self.beta:
            raise FeatureError(f"width {self.width} is not a multiple of beta {self.beta}")


class Bottleneck(nn.Module):
    """1 x 1 x 1 (or 3 frames) -> 3 x 3 in space -> 1 x 1 x 1."""

    def __init__(self, inputs: int, inner: int, outputs: int, frames: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(inputs, inner, (frames, 1, 1), padding=(frames // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = nn.Conv3d(inner, outputs, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(outputs)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        hidden = self.a_bn(self.a(x_BCFHW)).relu()
        hidden = self.b_bn(self.b(hidden)).relu()
        return self.c_bn(self.c(hidden))


class Block(nn.Module):
    """Residual block; the first of a stage changes the channels and has a projection (`branch1`)."""

    def __init__(self, inputs: int, inner: int, outputs: int, frames: int, stride: int) -> None:
        super().__init__()
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.branch1 = nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(outputs)
        self.branch2 = Bottleneck(inputs, inner, outputs, frames, stride)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        shortcut = self.branch1_bn(self.branch1(x_BCFHW)) if self.projects else x_BCFHW
        return (shortcut + self.branch2(x_BCFHW)).relu()


class Stem(nn.Module):
    """7 x 7 in space, stride 2, then the strongest of 3 x 3, stride 2."""

    def __init__(self, outputs: int, frames: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, outputs, (frames, 7, 7), (1, 2, 2), (frames // 2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(outputs)
        self.pool_layer = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        return self.pool_layer(self.bn(self.conv(x_BCFHW)).relu())


class FastToSlow(nn.Module):
    """The fast pathway, read every `alpha` frames, is put beside the slow one."""

    def __init__(self, fast: int, config: SlowFastConfig) -> None:
        super().__init__()
        kernel, padding = (config.fuse_kernel, 1, 1), (config.fuse_kernel // 2, 0, 0)
        self.conv_f2s = nn.Conv3d(fast, 2 * fast, kernel, (config.alpha, 1, 1), padding, bias=False)
        self.bn = nn.BatchNorm3d(2 * fast)

    def forward(self, slow_BCFHW: Tensor, fast_BCFHW: Tensor) -> Tensor:
        return torch.cat([slow_BCFHW, self.bn(self.conv_f2s(fast_BCFHW)).relu()], 1)


class SlowFast(nn.Module):
    """Both pathways, under the authors' parameter names; the classes' projection is left out.

    Args:
        config: sizes.
    """

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.config = config
        slow, fast = config.width, config.width // config.beta
        self.s1 = nn.ModuleDict({"pathway0_stem": Stem(slow, 1), "pathway1_stem": Stem(fast, 5)})
        self.s1_fuse = FastToSlow(fast, config)
        slow_in, fast_in = slow + 2 * fast, fast
        for stage, depth in enumerate(config.depths):
            slow_out, fast_out = 4 * slow * 2**stage, 4 * fast * 2**stage
            slow_frames = 1 if stage < 2 else 3  # table 1: s4 and s5 look at motion in the slow pathway too
            stride = 1 if stage == 0 else 2
            blocks = _blocks("pathway0", depth, slow_in, slow_out, slow_frames, stride)
            blocks |= _blocks("pathway1", depth, fast_in, fast_out, 3, stride)
            self.add_module(f"s{stage + 2}", nn.ModuleDict(blocks))
            if stage + 1 < len(config.depths):
                self.add_module(f"s{stage + 2}_fuse", FastToSlow(fast_out, config))
            slow_in, fast_in = slow_out + 2 * fast_out, fast_out
        self.dim = slow_out + fast_out

    def forward(self, fast_BCFHW: Tensor) -> Tensor:
        """(B, 3, 32, S, S), normalised -> (B, 2304): slow channels first."""
        slow, fast = fast_BCFHW[:, :, slow_frames(fast_BCFHW.shape[2], self.config.alpha)], fast_BCFHW
        for stage in range(1, len(self.config.depths) + 2):
            for name, block in self.get_submodule(f"s{stage}").named_children():
                if name.startswith("pathway0"):
                    slow = block(slow)
                else:
                    fast = block(fast)
            if stage <= len(self.config.depths):
                slow = self.get_submodule(f"s{stage}_fuse")(slow, fast)
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)


def _blocks(
    pathway: str, depth: int, inputs: int, outputs: int, frames: int, stride: int
) -> dict[str, nn.Module]:
    blocks: dict[str, nn.Module] = {}
    for index in range(depth):
        first = index == 0
        blocks[f"{pathway}_res{index}"] = Block(
            inputs if first else outputs, outputs // 4, outputs, frames, stride if first else 1
        )
    return blocks


def slow_frames(frames: int, alpha: int) -> Tensor:
    """The fast pathway's frames that the slow one sees: trunc(linspace(0, frames - 1, frames / alpha))."""
    return torch.linspace(0, frames - 1, frames // alpha).long()


def frame_offsets_s(clip_length_s: float) -> tuple[float, ...]:
    """Times of a clip's 32 frames: evenly spread over its frames at 30 a second, rounded down."""
    there = max(1, round(SOURCE_FPS * clip_length_s))
    picked = np.floor(np.linspace(0, there - 1, FRAMES) + 1e-9)
    return tuple(float(index) / SOURCE_FPS for index in picked)


class SlowFastEncoder:
    """Frames -> 2304 channels a clip; see `momentkit.features.base.FrameEncoder`.

    Args:
        network: in eval mode.
        revision: for the contract.
        clip_length_s: seconds a clip covers.
        side: pixels of the square the network sees.
    """

    frame_size: tuple[int, int] | None = None  # the crop depends on the film's aspect

    def __init__(self, network: SlowFast, revision: str, clip_length_s: float, side: int = SIDE) -> None:
        if not clip_length_s > 0:
            raise FeatureError(f"the clip length must be positive, got {clip_length_s}")
        self._network = network.eval().requires_grad_(False)
        level, deviation = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
        self._preprocess = Preprocess(shorter_side=side, crop=side, mean=level, std=deviation)
        self.clip_length_s = clip_length_s
        self.frame_offsets_s = frame_offsets_s(clip_length_s)
        self.contract = StreamContract(
            encoder=SLOWFAST_NAME,
            revision=revision,
            layer="pool",
            dim=network.dim,
            fps=1.0 / clip_length_s,
            crop=self._preprocess.name,
        )

    @classmethod
    def read(cls, path: str | Path, *, clip_length_s: float = 2.0, device: str = "cpu") -> Self:
        """An encoder from its weights, as `momentkit features import` writes them.

        Raises:
            WeightsError: damaged, or the weights of something else.
        """
        options, tensors, revision = read_network(path, SLOWFAST_NAME)
        network = SlowFast(build(SlowFastConfig, options, str(path)))
        fill(network, tensors, path)
        return cls(network.to(device), revision, clip_length_s)

    @torch.no_grad()
    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """32 frames (H, W, 3) uint8 RGB a clip -> (T, 2304) float32, raw.

        Raises:
            FeatureError: not 32 frames a clip.
        """
        if not frames or len(frames) % FRAMES:
            raise FeatureError(f"{SLOWFAST_NAME} takes {FRAMES} frames a clip, got {len(frames)} frames")
        device = next(self._network.parameters()).device
        rows = []
        for first in range(0, len(frames), FRAMES):  # one clip at a time: 24 MiB of pixels each
            pixels_FCHW = torch.from_numpy(self._preprocess(frames[first : first + FRAMES]))
            rows.append(self._network(pixels_FCHW.transpose(0, 1)[None].to(device)))
        return torch.cat(rows).float().cpu().numpy()


def options_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """The sizes of a network, read off its parameters; alpha leaves no trace in them and is that of 8x8."""
    depths = [
        len({name.split(".")[1] for name in state if name.startswith(f"s{stage}.pathway0_res")})
        for stage in range(2, 6)
    ]
    width, fast = (len(state[f"s1.pathway{path}_stem.conv.weight"]) for path in (0, 1))
    config = SlowFastConfig(
        depths=tuple(depth for depth in depths if depth),
        width=width,
        beta=width // fast,
        fuse_kernel=state["s1_fuse.conv_f2s.weight"].shape[2],
    )
    return asdict(config)
