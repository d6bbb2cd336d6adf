"""UVCOM: its shortcuts equal what they stand for; negatives, the alignment loss, audio, ablations."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from claims.models import random_batch, tiny_model
from momentkit.convert.architecture import read_options
from momentkit.convert.keys import rename
from momentkit.core.errors import ConfigError, FeatureError
from momentkit.models.registry import build_model
from momentkit.models.uvcom import OneSlot, UVCOMConfig, first_window
from momentkit.nn.centres import gather, walk
from momentkit.train.run import create_run_model
from momentkit.train.run_config import parse_run, read_run_config, to_toml

CONFIGS = Path(__file__).parents[2] / "configs"
PARITY = Path(__file__).parents[1] / "parity" / "uvcom" / "pad4"
# What the published network carries and never uses: learned word positions, the overwritten token, queries
# and keys of the slot attention.
UNUSED = (32 * 256 + 2 * 256) + 256 + 2 * (256 * 256 + 256) + 2 * 256

CLIPS, WORDS = [11, 4, 7], [5, 2, 3]


def masked(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_one_slot_is_what_slot_attention_on_equal_slots_gives() -> None:
    torch.manual_seed(0)
    slot, query, key, norm = OneSlot(8, 12), *(torch.nn.Linear(8, 8) for _ in range(2)), torch.nn.LayerNorm(8)
    memory_BTd, sentence_Bd = torch.randn(3, 6, 8), torch.randn(3, 8)
    inputs = slot.norm_inputs(memory_BTd)
    slots_BSd = sentence_Bd[:, None].repeat(1, 5, 1)
    for _ in range(5):
        score_BST = query(norm(slots_BSd)) @ key(inputs).transpose(1, 2) / 8**0.5
        share_BST = score_BST.softmax(1)
        assert_close(share_BST, torch.full_like(share_BST, 0.2))
        share_BST = share_BST / (share_BST.sum(2, keepdim=True) + 1e-8)
        slots_BSd = slots_BSd + share_BST @ slot.project_v(inputs)
        slots_BSd = slots_BSd + slot.mlp(slot.norm_mlp(slots_BSd))
    ours_Bd = slot(memory_BTd, torch.ones(3, 6, dtype=torch.bool), sentence_Bd)
    assert_close(slot.norm_out(slots_BSd), ours_Bd[:, None].expand(-1, 5, -1), rtol=1e-5, atol=1e-5)


def test_the_walk_is_the_inverse_of_all_clips_and_leaves_padding_out() -> None:
    torch.manual_seed(0)
    x_BTd, centres_BKd, seen_BT = torch.randn(3, 11, 8), torch.randn(3, 4, 8), masked(CLIPS)
    ours_BTd = walk(x_BTd, centres_BKd, seen_BT)
    for row, clips in enumerate(CLIPS):
        x, centres = x_BTd[row, :clips].double(), centres_BKd[row].double()
        cosine = torch.nn.functional.normalize(centres, dim=1) @ torch.nn.functional.normalize(x, dim=1).T
        share = (5 * cosine).softmax(0)
        among = share.T @ (share / share.sum(1, keepdim=True))
        assert_close(among.sum(1), torch.ones(clips).double())
        wanted = 0.5 * torch.linalg.inv(torch.eye(clips).double() - 0.25 * among)
        wanted = wanted @ (0.5 * share.T @ centres + x)
        assert_close(ours_BTd[row, :clips].double(), wanted, rtol=1e-5, atol=1e-5)


def test_centres_move_by_the_distance_of_unit_vectors() -> None:
    torch.manual_seed(0)
    centres_Kd, x_BNd = torch.randn(4, 8), torch.randn(2, 9, 8)
    moved_BKd = centres_Kd.expand(2, -1, -1)
    for _ in range(3):
        unit, units = (torch.nn.functional.normalize(x, dim=-1) for x in (moved_BKd, x_BNd))
        distance_BKN = (unit[:, :, None] - units[:, None]).square().sum(-1)
        share_BKN = (-0.5 * distance_BKN / 1.44).softmax(1)
        moved_BKd = (share_BKN / share_BKN.sum(2, keepdim=True)) @ x_BNd
    everything = torch.ones(2, 9, dtype=torch.bool)
    assert_close(gather(centres_Kd, x_BNd, everything, 3), moved_BKd, rtol=1e-5, atol=1e-5)


def test_the_first_window_loses_no_clip_to_rounding_and_in_the_published_way_may() -> None:
    mask_BT = torch.ones(1, 60, dtype=torch.bool)
    lost = 0
    for start in range(59):
        for end in range(start + 1, 61):
            windows_clip = (torch.tensor([[float(start), float(end)], [0.0, 60.0]]),)
            wanted = (torch.arange(60) >= start) & (torch.arange(60) < end)
            assert torch.equal(first_window(windows_clip, mask_BT, faithful=False)[0], wanted)
            published = first_window(windows_clip, mask_BT, faithful=True)[0]
            lost += not torch.equal(published, wanted)
            assert (published ^ wanted).sum() <= 2
    assert 0 < lost < 1000
    assert first_window((torch.tensor([[1.4, 3.9]]),), mask_BT, False)[0].nonzero().flatten().tolist() == [
        1,
        2,
    ]
    assert not first_window((torch.zeros(0, 2),), mask_BT, False).any()


def test_the_negative_is_the_next_sentence_and_later_the_least_similar() -> None:
    model, batch = tiny_model("uvcom", negative_epoch=3), random_batch(CLIPS, WORDS)
    stages = model.stages(batch)
    assert model.negative_rows(stages, batch, 2.9).tolist() == [1, 2, 0]
    video_Bd, clips_BTd, sentence_Bd = model.alignment(stages)
    for row, chosen in enumerate(model.negative_rows(stages, batch, 3.0).tolist()):
        of_video = (sentence_Bd @ video_Bd[row]).softmax(0)
        of_clips = torch.stack([(clips_BTd[row, : CLIPS[row]] @ other).mean() for other in sentence_Bd])
        assert chosen == (of_video + of_clips.softmax(0)).argmin()
    early, late = (model.losses(batch, epoch=epoch).terms["saliency"] for epoch in (0, 3))
    assert not torch.equal(early, late)


def test_audio_adds_to_the_video_and_its_absence_is_refused() -> None:
    model, batch = tiny_model("uvcom", audio_dim=7), random_batch(CLIPS, WORDS)
    with pytest.raises(FeatureError, match="audio features of 7 channels"):
        model(batch)
    heard = replace(batch, audio_BTA=torch.randn(3, 11, 7))
    other = replace(batch, audio_BTA=torch.randn(3, 11, 7))
    assert not torch.equal(model(heard).score_BQ, model(other).score_BQ)
    stages = model.stages(heard)
    assert_close(
        stages.video_BTd - stages.projected_BTd, model.audio_in(heard.audio_BTA), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("option", ["slots", "clip_alignment", "cross_fusion", "distill_align"])
def test_every_ablation_trains_all_it_has(option: str) -> None:
    more = {"distill_memory": 6} if option == "distill_align" else {}
    model = tiny_model("uvcom", **{option: option in ("cross_fusion", "distill_align")}, **more).train()
    model.losses(random_batch([16, 12, 16], WORDS)).total.backward()
    learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert [name for name, value in learning.items() if value.grad is None or not value.grad.any()] == []
    plain = {name for name, _ in tiny_model("uvcom").named_parameters()}
    assert bool(plain - learning.keys()) == (option == "slots")


def test_highlights_train_saliency_and_alignment_alone() -> None:
    losses = tiny_model("uvcom", task="highlights").losses(random_batch(CLIPS, WORDS))
    assert losses.terms.keys() == {"saliency", "contrast"}


def test_loops_feed_the_features_back_and_add_the_table_again() -> None:
    batch = random_batch(CLIPS, WORDS)
    once, twice = (tiny_model("uvcom", decoder_loops=loops) for loops in (1, 2))
    stages = once.stages(batch)
    again = once.decoder(
        stages.decoded.hidden_NBQD[-1] + once.content_Qd,
        stages.fused.memory_BTd,
        batch.video_mask_BT,
        stages.positions_BTd,
        once.anchors,
    )
    assert_close(twice.stages(batch).decoded.hidden_NBQD, again.hidden_NBQD)


@pytest.mark.parametrize("options", [{"text_centres": 0}, {"audio_dim": -1}, {"mlp_width": 0}])
def test_options_that_cannot_be_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        UVCOMConfig(**options)


@pytest.mark.parametrize("data", ["qvhighlights", "charades"])
def test_the_published_run_has_the_published_number_of_parameters(data: str) -> None:
    config = read_run_config(CONFIGS / f"uvcom_{data}_slowfast_clip.toml")
    with torch.device("meta"):
        model = create_run_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 18_187_347 - UNUSED
    assert parse_run(tomllib.loads(to_toml(config)), "again") == config


def test_a_published_state_tells_its_options_and_loads() -> None:
    state = rename(load_file(PARITY / "state_dict.safetensors"), "uvcom")
    options = read_options(state, "uvcom")
    assert (options["mlp_width"], options["text_centres"], options["video_centres"]) == (40, 3, 6)
    assert options["slots"] and not options["cross_fusion"] and options["audio_dim"] == 0
    build_model("uvcom", options).load_state_dict(state)
