"""Small instances of every registered model, and batches to show claims on."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from momentkit.core.types import Batch, Targets
from momentkit.models.registry import create_model

VIDEO_DIM, TEXT_DIM = 10, 6
TINY = {
    "diffusion_vmr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "encoder_layers": 2,
        "proposals": 5,
        "steps": 3,
        "bins": 4,
        "dynamic_width": 4,
    },
    "flashvtg": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "dummies": 3,
        "cross_layers": 2,
        "encoder_layers": 1,
        "dummy_layers": 1,
        "score_layers": 2,
    },
    "moment_detr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "queries": 5,
        "contrast": 4,
        "decoder_loops": 2,
    },
    "tr_detr": {"hidden": 16, "heads": 4, "feed_forward": 24, "queries": 5, "decoder_loops": 2},
    "ld_detr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "queries": 5,
        "conv_blocks": 2,
        "decoder_loops": 2,
        "distill_memory": 6,
    },
    "map_diffusion": {
        "hidden": 16,
        "text_hidden": 8,
        "text_layers": 1,
        "columns": 4,
        "scales": 2,
        "kernel": 3,
        "width": 16,
        "map_width": 4,
        "heads": 4,
        "feed_forward": 24,
        "steps": 3,
    },
    "ms_2d_tan": {
        "hidden": 16,
        "text_hidden": 8,
        "text_layers": 1,
        "columns": 4,
        "scales": 2,
        "kernel": 3,
    },
    "momentdiff": {"hidden": 16, "heads": 4, "feed_forward": 24, "steps": 3},
    "cg_detr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "dummies": 3,
        "prompts": 4,
        "top_prompts": 2,
        "dummy_layers": 1,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "queries": 5,
        "decoder_loops": 2,
    },
    # Two loops: in a first pass the queries are alike, and what tells them apart gets no gradient.
    "qd_detr": {"hidden": 16, "heads": 4, "feed_forward": 24, "queries": 5, "decoder_loops": 2},
    "uvcom": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "mlp_width": 20,
        "cross_layers": 2,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "queries": 5,
        "text_centres": 3,
        "video_centres": 4,
    },
    "bm_detr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "queries": 5,
        "contrast": 8,
        "decoder_loops": 2,
    },
}
# One space: frames and sentence are equally wide.
TINY["zeroshot"] = {"text_dim": VIDEO_DIM, "levels": 4, "proposals": 6, "smooth": 3}
PLUGINS = {"distill_align": True, "distill_memory": 6}


def tiny_model(name: str, seed: int = 0, **options: object) -> torch.nn.Module:
    """A model small enough for a unit test, its parameters redrawn so that each of them matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = {"video_dim": VIDEO_DIM, "text_dim": TEXT_DIM}
        model = create_model(name, **(widths | TINY[name] | options))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch_of(name: str, clips: list[int], words: list[int]) -> Batch:
    """A random batch of the widths that a tiny model takes."""
    return random_batch(clips, words, text_dim=int(TINY[name].get("text_dim", TEXT_DIM)))


def random_batch(clips: list[int], words: list[int], seed: int = 0, text_dim: int = TEXT_DIM) -> Batch:
    """Random samples of the given lengths, padded with zeros, with a truth in the first half of each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(lengths: list[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        return torch.randn(*mask.shape, width, generator=generator) * mask[..., None], mask

    video_BTD, video_mask_BT = draw(clips, VIDEO_DIM)
    text_BLE, text_mask_BL = draw(words, text_dim)
    ends = [max(1, count // 2) for count in clips]
    saliency_BT = (torch.arange(max(clips))[None] < torch.tensor(ends)[:, None]).float() * 4
    targets = Targets(
        windows_clip=tuple(torch.tensor([[0.0, float(end)]]) for end in ends),
        saliency_BT=saliency_BT,
        positive_clip_BP=torch.zeros(len(clips), 2, dtype=torch.long),
        negative_clip_BP=torch.tensor([[count - 1] * 2 for count in clips]),
    )
    return Batch(
        video_BTD=video_BTD,
        video_mask_BT=video_mask_BT,
        text_BLE=text_BLE,
        text_mask_BL=text_mask_BL,
        targets=targets,
    )


def pad(batch: Batch, clips: int, words: int, fill: float) -> Batch:
    """The same samples with more padding, loud so that a leak cannot hide."""

    def grow(values: torch.Tensor, mask: torch.Tensor, extra: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.masked_fill(~mask[..., None], fill)
        return F.pad(values, (0, 0, 0, extra), value=fill), F.pad(mask, (0, extra))

    video_BTD, video_mask_BT = grow(batch.video_BTD, batch.video_mask_BT, clips)
    text_BLE, text_mask_BL = grow(batch.text_BLE, batch.text_mask_BL, words)
    assert batch.targets is not None
    targets = replace(batch.targets, saliency_BT=F.pad(batch.targets.saliency_BT, (0, clips)))
    return Batch(
        video_BTD=video_BTD,
        video_mask_BT=video_mask_BT,
        text_BLE=text_BLE,
        text_mask_BL=text_mask_BL,
        targets=targets,
    )


def pick(batch: Batch, index: list[int]) -> Batch:
    """Samples of a batch by position, without targets, cut to the longest of them."""
    clips = int(batch.video_mask_BT[index].sum(1).max())
    words = int(batch.text_mask_BL[index].sum(1).max())
    return Batch(
        video_BTD=batch.video_BTD[index][:, :clips],
        video_mask_BT=batch.video_mask_BT[index][:, :clips],
        text_BLE=batch.text_BLE[index][:, :words],
        text_mask_BL=batch.text_mask_BL[index][:, :words],
    )
