"""QD-DETR: clips look at words before anything else, a token sums up the video, anchors become moments.

    text  (B,L,E) -- projection --------+
    video (B,T,D) -- projection -- cross layers -- [token; clips] -- encoder --+-- saliency (B,T)
    anchors (Q,2) -------------------------------------------- anchor decoder -+-- moments (B,Q)

Source   Moon et al., "Query-Dependent Video Representation for Moment Retrieval and Highlight Detection",
         CVPR 2023. `faithful=True` brings back the published cross-attention mask, tiled in the wrong order,
         and the negative sentence at the word positions of the right one.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q queries  N decoder layers
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from momentkit.core.types import Batch, Targets
from momentkit.losses.saliency import against_negative
from momentkit.models import family
from momentkit.nn.transformer import encode_behind


@dataclass(frozen=True, kw_only=True)
class QDDETRConfig(family.AnchorConfig):
    """Options; the defaults are the published QVHighlights run."""

    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    background: float = 0.1  # weight of an unmatched query in the label loss


@dataclass(frozen=True)
class Fused:
    """Video that has looked at a sentence."""

    cross_BTd: Tensor
    global_Bd: Tensor
    memory_BTd: Tensor
    saliency_BT: Tensor


@dataclass(frozen=True)
class Stages(family.AnchorStages):
    """All that the network computes on the way."""

    place_BLd: Tensor  # of words; zeros unless the option is on
    fused: Fused


class QDDETR(family.AnchorModel[QDDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: QDDETRConfig) -> None:
        super().__init__(config, config.text_positions)
        c, d = config, config.hidden
        self.token, self.token_position = nn.Parameter(torch.randn(d)), nn.Parameter(torch.randn(d))
        self.cross = family.cross_stack(c, c.cross_layers)
        self.encoder = family.encoder_stack(c, c.encoder_layers)
        self.add_decoder(self.cross, self.encoder)
        self.saliency_clip, self.saliency_global = nn.Linear(d, d), nn.Linear(d, d)
        self.distill = self.plug_in()

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        place_BLd = self.word_positions(given.text_BLd)
        fused = self.fuse(given, place_BLd)
        decoded, logits, spans = self.decode(given, fused.memory_BTd)
        return Stages(given, logits, spans, fused.saliency_BT, decoded, place_BLd, fused)

    def fuse(self, given: family.Given, place_BLd: Tensor) -> Fused:
        """Cross layers, encoder with the token in front, saliency as the dot product with the token."""
        cross_BTd = self.look_at_words(self.cross, given.video_BTd, given, place_BLd)
        token = self.token[None], self.token_position[None]
        sequence = encode_behind(*token, self.encoder, cross_BTd, given.place_BTd, given.mask_BT)
        global_Bd, memory_BTd = sequence[:, 0], sequence[:, 1:]
        saliency_BT = family.against_token(self.saliency_clip(memory_BTd), self.saliency_global(global_Bd))
        return Fused(cross_BTd, global_Bd, memory_BTd, saliency_BT)

    def negative_pass(self, stages: Stages, batch: Batch) -> Fused:
        """Each video with the sentence of the next sample (its own where it is alone).

        `faithful`: that sentence at the word positions of the right one; padding then reaches the loss.
        """
        row_B = torch.arange(len(batch.video_BTD), device=batch.video_BTD.device).roll(-1)
        place_BLd = stages.place_BLd if self.config.faithful else stages.place_BLd[row_B]
        return self.fuse(stages.given.with_text_of(row_B), place_BLd)

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """Saliency with a negative pass, set losses of every decoder layer."""
        c, negative_BT = self.config, self.negative_pass(stages, batch).saliency_BT
        saliency = against_negative(stages.saliency_BT, negative_BT, targets, batch.video_mask_BT, c.margin)
        return {"saliency": saliency} | self.set_terms(stages, batch, c.background)
