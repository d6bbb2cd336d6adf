"""Parts that turn clips and words into maps of moment features that have seen the sentence.

    clips (B,T,D) -- 1x1 conv, ReLU, average pooling -- one chain of layers, each makes windows longer -- maps
    words (B,L,E) -- LSTM -- sentence (B,d);   fused = map * sentence, length 1 in each valid cell

Shapes   B samples   T clips   N clips after pooling   M windows of one length   L words   D, E input widths
         d hidden   K scales   n rows of a scale, N // 2^k   A columns (lengths) of a scale
Source   Zhang et al., MS-2D-TAN (TPAMI 2021) and 2D-TAN (AAAI 2020); ms_2d_tan.md sections 3 and 8
"""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import FeatureError
from momentkit.nn.masks import masked_mean

Windows = Literal["conv", "pool", "plain"]


def layer_counts(columns: int, scales: int) -> list[int]:
    """Layers of the chain a scale: a window length each; every second one is the scale's before."""
    return [columns] + [columns // 2] * (scales - 1)


def sample_edges(count_B: Tensor, samples: int) -> Tensor:
    """(B, samples + 1) clip at which each of `samples` equal parts of a video begins; the last one clip less.

    Args:
        count_B: real clips.
        samples: parts.
    """
    share = torch.arange(samples + 1, device=count_B.device, dtype=torch.float32) / samples
    edge = (share * count_B[:, None].float()).round()  # float32, half to even: as published
    return torch.minimum(edge.long(), count_B[:, None] - 1)


def resample(video_BTD: Tensor, count_B: Tensor, samples: int, kind: Literal["pick", "mean"]) -> Tensor:
    """(B, T, D) -> (B, samples, D) over the real clips of each video, whatever its length.

    Args:
        video_BTD: real clips first.
        count_B: how many.
        samples: rows of the result.
        kind: "pick" takes the clip in the middle of each part, "mean" the average of its clips.
    """
    edge = sample_edges(count_B, samples)
    first_BS, next_BS = edge[:, :-1], edge[:, 1:]
    if kind == "pick":
        return video_BTD.take_along_dim(((first_BS + next_BS) // 2)[..., None], 1)
    clip_T = torch.arange(video_BTD.shape[1], device=count_B.device)
    inside_BST = clip_T >= first_BS[..., None]
    inside_BST &= clip_T < torch.maximum(next_BS, first_BS + 1)[..., None]
    share_BST = inside_BST / inside_BST.sum(2, keepdim=True)
    real_BT = clip_T < count_B[:, None]
    return share_BST.to(video_BTD.dtype) @ video_BTD.masked_fill(~real_BT[..., None], 0)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose training statistics are those of the entries that are read.

    Fewer than two entries have no spread: they are normalised with the running statistics.

    Args:
        width: channels.
        momentum: share of a batch in the running statistics.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x_BdM: Tensor, read_BM: Tensor | None) -> Tensor:
        """(B, d, M), (B, M) -> (B, d, M); None: all are read, and the arithmetic is torch's to the bit."""
        if read_BM is None:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(
                x_BdM, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps
            )
        mean_d, var_d = self.running_mean, self.running_var
        if self.training:
            mean_d, var_d = self._statistics(x_BdM.float(), read_BM[:, None])
        scale_d = self.weight / (var_d + self.eps).sqrt()
        return (x_BdM - mean_d[:, None]) * scale_d[:, None] + self.bias[:, None]

    def _statistics(self, x_BdM: Tensor, read_B1M: Tensor) -> tuple[Tensor, Tensor]:
        count = read_B1M.sum()
        enough = count >= 2
        mean_d = (x_BdM * read_B1M).sum((0, 2)) / count.clamp(min=1)
        var_d = ((x_BdM - mean_d[:, None]) ** 2 * read_B1M).sum((0, 2)) / count.clamp(min=1)
        with torch.no_grad():
            share = self.momentum * enough
            self.running_mean.lerp_(mean_d.to(self.running_mean), share)
            unbiased_d = var_d * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased_d.to(self.running_var), share)
        # Cloned: the running statistics change with the next step, before this one's gradient may be taken.
        kept = self.running_mean.clone(), self.running_var.clone()
        return torch.where(enough, mean_d, kept[0]), torch.where(enough, var_d, kept[1])


class WindowLayer(nn.Module):
    """Windows -> longer windows: convolution, batch norm, tanh; or max pooling; or a convolution alone."""

    def __init__(self, d: int, kernel: int, stride: int, kind: Windows) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = None if kind == "pool" else nn.Conv1d(d, d, kernel, stride)
        self.norm = MaskedBatchNorm(d) if kind == "conv" else None

    def forward(self, x_BdM: Tensor, read_BM: Tensor | None) -> Tensor:
        """(B, d, M), and which of the new windows statistics are taken of -> the new windows."""
        if self.conv is None:
            return F.max_pool1d(x_BdM, self.kernel, self.stride)
        x_BdM = self.conv(x_BdM)
        return x_BdM if self.norm is None else self.norm(x_BdM, read_BM).tanh()


class WindowChain(nn.Module):
    """One chain through all scales: features of windows of growing length.

    Layer 0 reads a clip. Within scale k a layer adds 2^k clips to the window; the first layer of scale k >= 1
    has kernel 3 and doubles the step between windows.

    Args:
        d: width.
        columns: A, window lengths stored a scale; even where there are several scales.
        scales: K.
        kind: of layer.
        read_padding: published: training statistics of batch norm see padding.
    """

    def __init__(self, d: int, columns: int, scales: int, kind: Windows, read_padding: bool) -> None:
        super().__init__()
        self.columns, self.scales, self.read_padding = columns, scales, read_padding

        def layer(scale: int, index: int) -> WindowLayer:
            first = index == 0
            kernel = (1 if scale == 0 else 3) if first else 2
            return WindowLayer(d, kernel, 2 if first and scale else 1, kind)

        self.layers = nn.ModuleList(
            nn.ModuleList(layer(scale, index) for index in range(count))
            for scale, count in enumerate(layer_counts(columns, scales))
        )

    @property
    def needed_clips(self) -> int:
        """The longest window: fewer clips cannot pass the chain."""
        return int(self.columns * 2 ** (self.scales - 1))

    def forward(self, x_BdN: Tensor, clips_B: Tensor) -> list[list[Tensor]]:
        """(B, d, N) and real clips -> for each scale, for each new length, (B, d, M); zero where not real.

        Raises:
            FeatureError: fewer clips than the longest window.
        """
        if x_BdN.shape[2] < self.needed_clips:
            raise FeatureError(
                f"a map of {self.scales} scales and {self.columns} lengths has windows of "
                f"{self.needed_clips} clips, got {x_BdN.shape[2]}; pad the video or use a smaller map"
            )
        windows: list[list[Tensor]] = []
        length = 0
        for scale, layers in enumerate(self.layers):
            windows.append([])
            for layer in cast(list[WindowLayer], layers):
                length += 2**scale
                count = (x_BdN.shape[2] - layer.kernel) // layer.stride + 1
                end_M = torch.arange(count, device=clips_B.device) * 2**scale + length
                real_BM = end_M <= clips_B[:, None]
                read_BM = None if self.read_padding else real_BM
                x_BdN = layer(x_BdN, read_BM) * real_BM[:, None]
                windows[-1].append(x_BdN)
        return windows


def scale_maps(windows: Sequence[Sequence[Tensor]], clips: int) -> list[Tensor]:
    """A map (B, d, n, A) a scale; columns of even length come from the scale before.

    Args:
        windows: of `WindowChain`.
        clips: N.
    """
    maps: list[Tensor] = []
    for scale, news in enumerate(windows):
        rows = clips // 2**scale
        columns = torch.stack([F.pad(new, (0, rows - new.shape[2])) for new in news], -1)
        if maps:
            columns = torch.cat([maps[-1][:, :, : 2 * rows : 2, 1::2], columns], -1)
        maps.append(columns)
    return maps


def plane_map(windows: Sequence[Sequence[Tensor]], clips: int) -> Tensor:
    """2D-TAN's one map (B, d, N, N): row = first clip, column = last clip; zero where no window lies.

    Args:
        windows: of `WindowChain`.
        clips: N.
    """
    values_BdQ = torch.cat(list(chain.from_iterable(windows)), 2)
    place_Q = plane_places([[new.shape[2] for new in news] for news in windows], clips).to(values_BdQ.device)
    empty = values_BdQ.new_zeros(*values_BdQ.shape[:2], clips * clips)
    return empty.index_copy(2, place_Q, values_BdQ).unflatten(2, (clips, clips))


def plane_places(counts: Sequence[Sequence[int]], clips: int) -> Tensor:
    """(Q,) places of a chain's windows in a flattened (N, N) map of first and last clip."""
    places, length = [], 0
    for scale, per_layer in enumerate(counts):
        for count in per_layer:
            length += 2**scale
            start_M = torch.arange(count) * 2**scale
            places.append(start_M * clips + start_M + length - 1)
    return torch.cat(places)


class SentenceEncoder(nn.Module):
    """Words -> one vector: LSTM layers, the mean or the last state of the real words, a linear layer.

    Args:
        text_dim: E.
        hidden: of the LSTM, both directions together.
        layers: of the LSTM.
        d: width of the result.
        pooling: "mean" reads both directions; "last" is 2D-TAN's forward LSTM at the last real word.
        pack: False: the LSTM runs over padding, so a sentence depends on the longest one of its batch.
    """

    def __init__(
        self, text_dim: int, hidden: int, layers: int, d: int, pooling: Literal["mean", "last"], pack: bool
    ) -> None:
        super().__init__()
        self.pooling, self.pack = pooling, pack
        both = pooling == "mean"
        self.lstm = nn.LSTM(text_dim, hidden // (1 + both), layers, batch_first=True, bidirectional=both)
        self.out = nn.Linear(hidden, d)

    def forward(self, words_BLE: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, E), (B, L) -> states (B, L, hidden) and the sentence (B, d)."""
        words_BLE = words_BLE.masked_fill(~mask_BL[..., None], 0)
        length_B = mask_BL.sum(1)
        if self.pack:
            packed = nn.utils.rnn.pack_padded_sequence(
                words_BLE, length_B.cpu(), batch_first=True, enforce_sorted=False
            )
            states_BLh, _ = nn.utils.rnn.pad_packed_sequence(
                self.lstm(packed)[0], batch_first=True, total_length=words_BLE.shape[1]
            )
        else:
            states_BLh, _ = self.lstm(words_BLE)
        if self.pooling == "mean":
            return states_BLh, self.out(masked_mean(states_BLh, mask_BL[..., None], 1))
        last_B11 = (length_B - 1)[:, None, None].expand(-1, 1, states_BLh.shape[2])
        return states_BLh, self.out(states_BLh.gather(1, last_B11)[:, 0])


class ClipEncoder(nn.Module):
    """1x1 convolution, ReLU, average of every `pool` clips.

    Args:
        video_dim: D.
        d: width.
        pool: clips that become one.
        whole: published: a pooled clip is real when all its clips are. Otherwise one is enough, the mean is
            that of the real ones, and no video is without a real clip.
    """

    def __init__(self, video_dim: int, d: int, pool: int, whole: bool) -> None:
        super().__init__()
        self.pool, self.whole = pool, whole
        self.conv = nn.Conv1d(video_dim, d, 1)

    def forward(self, video_BTD: Tensor, mask_BT: Tensor, needed: int) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, T) -> (B, d, N) with N at least `needed`, zero on padding; and (B,) real clips."""
        missing = max(needed * self.pool - mask_BT.shape[1], -mask_BT.shape[1] % self.pool)
        mask_BT = F.pad(mask_BT, (0, missing))
        video_BTD = F.pad(video_BTD, (0, 0, 0, missing)).masked_fill(~mask_BT[..., None], 0)
        x_BdNp = F.relu(self.conv(video_BTD.transpose(1, 2))).unflatten(2, (-1, self.pool))
        mask_BNp = mask_BT.unflatten(1, (-1, self.pool))
        real_BN = mask_BNp.all(2) if self.whole else mask_BNp.any(2)
        x_BdN = x_BdNp.mean(3) if self.whole else masked_mean(x_BdNp, mask_BNp[:, None], 3)
        return x_BdN * real_BN[:, None], real_BN.sum(1)


class MapFusion(nn.Module):
    """Product of a map and the sentence, scaled to length 1 over the channels."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(d, d, 1)  # of every cell

    def forward(self, map_BdnA: Tensor, sentence_Bd: Tensor, valid_BnA: Tensor) -> Tensor:
        """(B, d, n, A), (B, d), (B, n, A) -> (B, d, n, A), zero where not valid."""
        cells_BdC = self.conv(map_BdnA.flatten(2)) * sentence_Bd[..., None]
        fused_BdC = F.normalize(cells_BdC, dim=1, eps=1e-12)
        return fused_BdC.unflatten(2, map_BdnA.shape[2:]) * valid_BnA[:, None]
