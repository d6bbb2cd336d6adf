"""LD-DETR: aligned by distillation, fused with convolutions, decoded in loops.

    text  (B,L,E) -- projection --+-- Distill Align (training)
    video (B,T,D) -- projection --+-- fuser: V2T, T2V, encoder 1, convolutions, encoder 2 -- memory
    anchors (Q,2) -- loops of the anchor decoder over the memory -- moments (B,Q)
    best moment -- GRU -- weight of each clip -- memory, weighed -- saliency (B,T)

Source   "LD-DETR: Loop Decoder DEtection TRansformer", eq. 1-41, and the released code where the paper is
         silent or differs (docs/models.md). `faithful=True` brings back the released arithmetic on padding:
         cross-attention mask tiled in the wrong order; convolutions, batch statistics and global means that
         read padding; padded length as time base of the highlight head; short batches not remembered.
         The released decoder returns within its first pass: `decoder_loops=1`.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q queries  N decoder layers  R real clips
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Targets
from momentkit.losses.saliency import margin_and_rank
from momentkit.models import family
from momentkit.nn.refine import MomentGate, VideoTextRefinement
from momentkit.nn.transformer import encode

Part = Literal["v2t", "t2v", "encoder1", "conv", "encoder2"]


@dataclass(frozen=True, kw_only=True)
class LDDETRConfig(family.AnchorConfig):
    """Options; the defaults are the published QVHighlights run, with loops that loop."""

    # What fuses video and text, in this order; a part may be left out or moved (tables 8 and 9).
    fuser: tuple[Part, ...] = ("v2t", "t2v", "encoder1", "conv", "encoder2")
    cross_layers: int = 2  # of "t2v"
    encoder_layers: int = 2  # of "encoder1", and of "encoder2"
    conv_blocks: int = 5  # residual blocks of "conv" (table 7)
    block_convolutions: int = 2  # of each residual block; 1 for the table's single convolution
    decoder_loops: int = 3  # N of eq. 30; 1 = as released
    distill_align: bool = True  # in training
    distill_memory: int = 65_536  # l of eq. 3
    distill_share: float = 0.4  # alpha of eq. 5
    tiled_mask: bool = True  # False: of the faults of `faithful`, all but the cross-attention mask

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.fuser)) != len(self.fuser) or not {"v2t", "t2v"} & set(self.fuser):
            raise ConfigError(
                f"fuser lists its parts in order, each once, with v2t or t2v among them (no other part reads "
                f"the text), got {list(self.fuser)}"
            )
        for name in ("conv_blocks", "block_convolutions"):
            if not getattr(self, name) >= 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}; for none, leave conv out of fuser"
                )


@dataclass(frozen=True)
class Stages(family.AnchorStages):
    """All that the network computes on the way."""

    fused: Mapping[Part, Tensor]  # (B,T,d) after each part of the fuser
    weight_BT: Tensor  # of each clip, from the best moment


class ResidualBlock(nn.Module):
    """Convolutions over clips with batch norm, added to what they read (eq. 26).

    Padding is zero before each convolution and no part of the batch statistics; `faithful`: it is both.
    """

    def __init__(self, width: int, convolutions: int, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(convolutions))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(convolutions))

    def forward(self, x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, d), (B, T) -> (B, T, d)."""
        mask_BT = torch.ones_like(mask_BT) if self.faithful else mask_BT
        y_BTd = x_BTd
        last = len(self.convs) - 1
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y_BTd = conv(y_BTd.masked_fill(~mask_BT[..., None], 0).transpose(1, 2)).transpose(1, 2)
            y_BTd = _batch_norm(norm, y_BTd, mask_BT)
            y_BTd = F.relu(y_BTd + x_BTd if index == last else y_BTd)
        return y_BTd


def _batch_norm(norm: nn.Module, x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
    """Batch norm over real clips; padding stays as it is."""
    real_Rd = x_BTd[mask_BT]
    if norm.training and len(real_Rd) == 1:  # one clip has no variance: nothing to normalise by, or to learn
        return x_BTd
    return x_BTd.masked_scatter(mask_BT[..., None], norm(real_Rd).to(x_BTd.dtype))


class LDDETR(family.AnchorModel[LDDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: LDDETRConfig) -> None:
        super().__init__(config)
        c, d = config, config.hidden
        self.fuser = nn.ModuleDict({part: self._part(part) for part in c.fuser})
        self.add_decoder(*(module for part, module in self.fuser.items() if part != "conv"))
        self.gate = MomentGate(d, c.faithful)
        self.saliency = nn.Linear(d, d)
        self.distill = self.plug_in() if c.task == "moments" else None

    def _part(self, part: Part) -> nn.Module:
        c, d = self.config, self.config.hidden
        if part == "v2t":
            return VideoTextRefinement(d, c.dropout)
        if part == "t2v":
            return family.cross_stack(c, c.cross_layers)
        if part == "conv":
            blocks = range(c.conv_blocks)
            return nn.ModuleList(ResidualBlock(d, c.block_convolutions, c.faithful) for _ in blocks)
        return family.encoder_stack(c, c.encoder_layers)

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        fused = self._fuse(given)
        memory_BTd = fused[self.config.fuser[-1]]
        decoded, logits, spans = self.decode(given, memory_BTd)  # eq. 29 to 33
        weight_BT = self.gate(given.video_BTd, given.mask_BT, logits[-1], spans[-1])  # eq. 34-36
        weighed_BTd = memory_BTd * weight_BT[..., None] + memory_BTd
        # eq. 37, 38; the paper divides by d
        saliency_BT = self.saliency(weighed_BTd).sum(-1) / self.config.hidden**0.5
        return Stages(given, logits, spans, saliency_BT, decoded, fused, weight_BT)

    def blocked(self, x_mask: Tensor, context_mask: Tensor) -> Tensor | None:
        """As in the family, unless `tiled_mask` leaves it out."""
        return super().blocked(x_mask, context_mask) if self.config.tiled_mask else None

    def _fuse(self, given: family.Given) -> dict[Part, Tensor]:
        """Convolutional Fuser (eq. 9-28): what each part makes of the one before, in the configured order."""
        x_BTd, place_BTd, mask_BT, text_BLd, mask_BL = given
        after: dict[Part, Tensor] = {}
        for part in self.config.fuser:
            module = self.fuser[part]
            if isinstance(module, VideoTextRefinement):
                x_BTd = module(x_BTd, text_BLd, mask_BT, mask_BL)
            else:
                assert isinstance(module, nn.ModuleList)
                if part == "t2v":
                    x_BTd = self.look_at_words(module, x_BTd, given)
                elif part == "conv":
                    for block in module:
                        x_BTd = block(x_BTd, mask_BT)
                else:
                    x_BTd = encode(module, x_BTd, place_BTd, mask_BT)
            after[part] = x_BTd
        return after

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """Saliency, set losses of every decoder layer of the last loop."""
        scored = stages.saliency_BT, targets, batch.video_mask_BT
        saliency = margin_and_rank(*scored, self.config.margin)
        # The label loss is focal: the paper says cross entropy.
        return {"saliency": saliency} | self.set_terms(stages, batch, background=None)
