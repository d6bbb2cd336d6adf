"""A model and samples small enough to train in a test: one linear layer with dropout, planted windows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from momentkit.core.types import Batch, Losses, Prediction, Query
from momentkit.core.weights import WeightsCard
from momentkit.data.collate import Sample
from momentkit.train.loop import Trainer, create_accelerator
from momentkit.train.options import TrainConfig

CLIPS, WORDS, WIDTH = 12, 3, 6


class ToyModel(nn.Module):
    """Each clip proposes itself and the next one; the query decides how clips are scored."""

    def __init__(self, seed: int = 0, chance: bool = True) -> None:
        super().__init__()
        self.config = None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.video_in, self.text_in = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)
            self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(0.3 * chance)
        self.noise = 0.1 * chance
        self.register_buffer("seen", torch.zeros(()))

    def _scores(self, batch: Batch) -> torch.Tensor:
        words_BH = (self.text_in(batch.text_BLE) * batch.text_mask_BL[..., None]).sum(1)
        clips_BTH = self.norm(self.dropout(self.video_in(batch.video_BTD)))
        return (clips_BTH * words_BH[:, None]).sum(-1)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        score_BT = self._scores(batch)
        start_T = torch.arange(score_BT.shape[1], device=score_BT.device, dtype=torch.float32)
        spans_BT2 = torch.stack([start_T, start_T + 2], -1).expand(len(score_BT), -1, -1)
        mask_BT = batch.video_mask_BT
        return Prediction(
            spans_BQ2=spans_BT2,
            score_BQ=score_BT.sigmoid() * mask_BT,
            valid_BQ=mask_BT,
            saliency_BT=score_BT,
            span_unit="clip",
        )

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = 0.0) -> Losses:
        self.seen += len(batch.video_BTD)
        assert batch.targets is not None
        score_BT, mask_BT = self._scores(batch), batch.video_mask_BT
        noise = torch.randn(score_BT.shape, generator=generator, device=score_BT.device) * self.noise
        plain = nn.functional.binary_cross_entropy_with_logits(
            score_BT + noise, batch.targets.saliency_BT, reduction="none"
        )
        fit = ((plain * mask_BT).sum(1) / mask_BT.sum(1)).mean()
        size = ((score_BT.square() * mask_BT).sum(1) / mask_BT.sum(1)).mean()
        return Losses({"fit": fit, "size": size}, {"fit": 1.0, "size": 0.01})


@dataclass
class ToySource:
    """`count` samples on `count // 2` videos; the clips of the window carry the query's mark."""

    count: int = 24
    video_dim: int = WIDTH  # the mark fills the first WIDTH channels
    poison_at: tuple[int, int] | None = None  # (epoch, index) of a sample with a NaN among its labels

    def __len__(self) -> int:
        return self.count

    @property
    def queries(self) -> list[Query]:
        return [self.sample(index, 0).query for index in range(self.count)]

    def sample(self, index: int, epoch: int) -> Sample:
        generator = np.random.default_rng([index, epoch])
        place = np.random.default_rng([7, index])
        clips = int(place.integers(CLIPS // 2, CLIPS + 1))
        start = int(place.integers(0, clips - 2))
        mark_E = place.standard_normal(WIDTH).astype(np.float32)
        video_TD = generator.standard_normal((clips, self.video_dim)).astype(np.float32) * 0.2
        video_TD[start : start + 2, :WIDTH] += mark_E
        saliency_T = np.zeros(clips, np.float32)
        saliency_T[start : start + 2] = np.nan if self.poison_at == (epoch, index) else 1
        query = Query(
            qid=index, text=f"mark {index}", vid=f"video{index // 2}", duration_s=float(clips),
            windows_s=((float(start), float(start + 2)),),
        )  # fmt: skip
        return Sample(
            query=query, video_TD=video_TD, text_LE=np.stack([mark_E] * WORDS),
            windows_clip=np.array([[start, start + 2]], np.float32), saliency_T=saliency_T,
            positive_clip_P=np.array([start, start + 1]), negative_clip_P=np.array([(start + 2) % clips] * 2),
            video_key=query.vid, clip_length_s=1.0, duration_s=query.duration_s,
        )  # fmt: skip


def toy_figures(model: nn.Module) -> dict[str, float]:
    """Some figure that depends on every weight and draws random numbers, as a careless evaluation would."""
    torch.rand(3)
    return {"figure": float(sum(p.double().abs().sum() for p in model.parameters()).detach())}


SEPARABLE = TrainConfig(
    epochs=2, batch_size=5, learning_rate=1e-2, clip_norm=1.0, select_by=("figure",), threads=1
)


def toy_trainer(
    folder: Path, options: TrainConfig, source: ToySource | None = None, *, chance: bool = True
) -> Trainer:
    """A run of the toy in `folder`; its loss is a mean over samples."""
    folder.mkdir(parents=True, exist_ok=True)
    source = ToySource() if source is None else source
    accelerator = create_accelerator(options)
    card = WeightsCard(model="toy")
    return Trainer(ToyModel(chance=chance), source, toy_figures, options, folder, card, accelerator)
