"""What holds for every registered model."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from claims.models import batch_of, pad, pick, random_batch, tiny_model
from momentkit.core.errors import ConfigError, FeatureError
from momentkit.core.types import Batch, Prediction
from momentkit.models.registry import is_trainable, list_models

CLIPS, WORDS = [11, 4, 7, 1], [5, 2, 1, 4]
every_model = pytest.mark.parametrize("name", list_models())
every_trained_model = pytest.mark.parametrize("name", list(filter(is_trainable, list_models())))
every_untrained_model = pytest.mark.parametrize(
    "name", [name for name in list_models() if not is_trainable(name)]
)


def predict(model: torch.nn.Module, batch: Batch) -> Prediction:
    with torch.no_grad():
        return model(batch, generator=torch.Generator().manual_seed(3))


def assert_same_answer(one: Prediction, row: int, other: Prediction, other_row: int, clips: int) -> None:
    """Proposals and saliency of a sample agree to float noise."""
    ours, theirs = one.valid_BQ[row], other.valid_BQ[other_row]
    assert ours.sum() == theirs.sum()
    spans, others = one.spans_BQ2[row, ours], other.spans_BQ2[other_row, theirs]
    assert_close(spans, others, rtol=1e-5, atol=1e-5)
    assert_close(one.score_BQ[row, ours], other.score_BQ[other_row, theirs], rtol=0, atol=1e-5)
    assert_close(one.saliency_BT[row, :clips], other.saliency_BT[other_row, :clips], rtol=1e-5, atol=1e-5)


@every_model
def test_padding_never_moves_an_answer(name: str) -> None:
    model, batch = tiny_model(name), batch_of(name, CLIPS, WORDS)
    plain, padded = predict(model, batch), predict(model, pad(batch, clips=9, words=6, fill=1e3))
    for row, clips in enumerate(CLIPS):
        assert_same_answer(plain, row, padded, row, clips)


@every_model
def test_a_batch_answers_as_its_samples_alone(name: str) -> None:
    model, batch = tiny_model(name), batch_of(name, CLIPS, WORDS)
    together = predict(model, batch)
    for row, clips in enumerate(CLIPS):
        assert_same_answer(together, row, predict(model, pick(batch, [row])), 0, clips)


@every_model
def test_the_order_in_a_batch_changes_nothing(name: str) -> None:
    model, batch = tiny_model(name), batch_of(name, CLIPS, WORDS)
    order = [2, 0, 3, 1]
    straight, turned = predict(model, batch), predict(model, pick(batch, order))
    for new, old in enumerate(order):
        assert_same_answer(straight, old, turned, new, CLIPS[old])


@every_model
def test_the_same_input_gives_the_same_bits(name: str) -> None:
    model, batch = tiny_model(name), batch_of(name, CLIPS, WORDS)
    first, second = predict(model, batch), predict(model, batch)
    assert torch.equal(first.spans_BQ2, second.spans_BQ2) and torch.equal(first.score_BQ, second.score_BQ)


@every_model
@pytest.mark.parametrize("clips,words", [(1, 1), (1, 5), (9, 1)])
def test_one_clip_or_one_word_is_enough(name: str, clips: int, words: int) -> None:
    prediction = predict(tiny_model(name), batch_of(name, [clips], [words]))
    assert prediction.valid_BQ.any()
    for values in (prediction.spans_BQ2, prediction.score_BQ, prediction.saliency_BT):
        assert torch.isfinite(values).all()
    assert (prediction.score_BQ >= 0).all() and (prediction.score_BQ <= 1).all()


@every_model
def test_inputs_are_not_written_to(name: str) -> None:
    batch = batch_of(name, CLIPS, WORDS)
    before = batch.video_BTD.clone(), batch.text_BLE.clone()
    model = tiny_model(name).train()
    if is_trainable(name):
        model.losses(batch).total.backward()
    else:
        predict(model, batch)
    assert torch.equal(batch.video_BTD, before[0]) and torch.equal(batch.text_BLE, before[1])


@every_untrained_model
def test_a_model_that_is_not_trained_has_nothing_to_train_and_says_so(name: str) -> None:
    model = tiny_model(name)
    assert not model.state_dict()
    with pytest.raises(ConfigError, match="nothing to train"):
        model.losses(batch_of(name, CLIPS, WORDS))


@every_trained_model
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = tiny_model(name).train()
    model.losses(random_batch([16, 12, 16], WORDS[:3])).total.backward()
    slow = ("distill.video_in.", "distill.text_in.")  # copies that follow others instead of learning
    learning = {key: value for key, value in model.named_parameters() if not key.startswith(slow)}
    without = [key for key, value in learning.items() if value.grad is None or not value.grad.any()]
    assert without == []


@every_trained_model
@pytest.mark.parametrize("samples", [1, 4])
def test_losses_are_finite_and_named(name: str, samples: int) -> None:
    losses = tiny_model(name).train().losses(random_batch(CLIPS[:samples], WORDS[:samples]))
    assert losses.terms.keys() == losses.weights.keys()
    assert all(torch.isfinite(term) for term in losses.terms.values())


@every_trained_model
def test_padding_never_moves_a_loss(name: str) -> None:
    batch = random_batch(CLIPS, WORDS)
    padded = pad(batch, clips=9, words=6, fill=1e3)
    model = tiny_model(name, dropout=0.0, input_dropout=0.0)
    plain, loud = (model.losses(x, generator=torch.Generator().manual_seed(3)) for x in (batch, padded))
    for term in plain.terms:
        assert_close(
            loud.terms[term], plain.terms[term], rtol=1e-4, atol=1e-5, msg=lambda m, t=term: f"{t}: {m}"
        )


@every_trained_model
def test_the_generator_alone_decides_what_is_random(name: str) -> None:
    """Same seed, same moments and, without dropout, same losses, whatever torch's own generator is at."""
    model, batch = tiny_model(name, dropout=0.0, input_dropout=0.0), random_batch(CLIPS, WORDS)
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            losses = model.losses(batch, generator=torch.Generator().manual_seed(3))
            results.append((predict(model, batch), losses))
    (one, its_losses), (other, other_losses) = results
    assert torch.equal(one.spans_BQ2, other.spans_BQ2) and torch.equal(one.score_BQ, other.score_BQ)
    for term in its_losses.terms:
        assert torch.equal(its_losses.terms[term], other_losses.terms[term]), term


@every_model
def test_a_trace_ends_at_the_answer_and_is_the_same_alone(name: str) -> None:
    model, batch = tiny_model(name), batch_of(name, CLIPS, WORDS)
    together, alone = predict(model, batch), predict(model, pick(batch, [1]))
    assert len(together.trace) == len(alone.trace)
    for step, its_step in zip(together.trace, alone.trace, strict=True):
        assert_close(step[1], its_step[0], rtol=1e-5, atol=1e-5)
    if together.trace and together.trace[-1].shape == together.spans_BQ2.shape:
        assert torch.equal(together.trace[-1], together.spans_BQ2)


def test_a_text_of_padding_alone_is_refused() -> None:
    batch = random_batch(CLIPS, WORDS)
    mask = batch.text_mask_BL.clone()
    mask[2] = False
    with pytest.raises(FeatureError, match=r"text: sample 2 .* all padding"):
        replace(batch, text_mask_BL=mask)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    batch = random_batch(CLIPS, WORDS)
    video = batch.video_BTD.clone()
    video[1, 0, 3] = bad
    with pytest.raises(FeatureError, match=r"video: sample 1 .* not finite"):
        replace(batch, video_BTD=video)
