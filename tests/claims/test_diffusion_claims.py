"""What holds for every model that denoises: whose noise is whose, and what is computed how often."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from claims.models import pad, pick, random_batch, tiny_model
from momentkit.core.errors import ConfigError, FeatureError
from momentkit.core.types import Batch, Prediction, SamplingModel, noise_key
from momentkit.models.registry import list_models
from momentkit.predict.sampling import resampled

DENOISERS = {  # model -> what runs at every step; all else runs once
    "diffusion_vmr": {"decoder", "time", "saliency"},
    "map_diffusion": {"decoders", "time"},
    "momentdiff": {"denoiser"},
}
CLIPS, WORDS, KEYS = [11, 4, 7, 1], [5, 2, 1, 4], (7, 3, 2**64 - 1, 0)
every_denoiser = pytest.mark.parametrize("name", DENOISERS)


def keyed(keys: tuple[int, ...] = KEYS) -> Batch:
    return replace(random_batch(CLIPS, WORDS), noise_keys=keys)


def predict(model: torch.nn.Module, batch: Batch, seed: int = 3) -> Prediction:
    with torch.no_grad():
        return model(batch, generator=torch.Generator().manual_seed(seed))


def spans_of(prediction: Prediction, row: int) -> torch.Tensor:
    """Real proposals with their scores, and those of every step."""
    real_Q = prediction.valid_BQ[row]
    answer = torch.cat([prediction.spans_BQ2[row, real_Q], prediction.score_BQ[row, real_Q, None]], 1)
    steps = torch.cat([prediction.start_BQ2[row], *(step[row] for step in prediction.trace)])
    return torch.cat([answer.flatten(), steps.flatten()])


def twins(keys: tuple[int, ...]) -> Batch:
    """The same query twice."""
    return replace(pick(random_batch(CLIPS, WORDS), [0, 0]), noise_keys=keys)


def test_the_models_that_denoise_are_these() -> None:
    assert {name for name in list_models() if isinstance(tiny_model(name), SamplingModel)} == set(DENOISERS)


@every_denoiser
def test_a_query_meets_its_own_noise_whatever_the_batch(name: str) -> None:
    """Alone, in a batch, in another order, beside more padding: one answer, that of its key and the seed."""
    model, batch, order = tiny_model(name), keyed(), [2, 0, 3, 1]
    together = predict(model, batch)
    turned = predict(model, replace(pick(batch, order), noise_keys=tuple(KEYS[row] for row in order)))
    padded = predict(model, replace(pad(batch, clips=20, words=6, fill=1e3), noise_keys=KEYS))
    for row, clips in enumerate(CLIPS):
        alone = predict(model, replace(pick(batch, [row]), noise_keys=KEYS[row : row + 1]))
        for other, place in ((alone, 0), (turned, order.index(row)), (padded, row)):
            assert_close(spans_of(other, place), spans_of(together, row), rtol=1e-4, atol=1e-5)
            ours, theirs = together.saliency_BT[row, :clips], other.saliency_BT[place, :clips]
            assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@every_denoiser
def test_two_queries_meet_different_noise_unless_their_keys_agree(name: str) -> None:
    model = tiny_model(name)
    apart, alike, shared = (predict(model, twins(keys)) for keys in ((1, 2), (1, 1), ()))
    assert not torch.equal(spans_of(apart, 0), spans_of(apart, 1))
    assert not torch.allclose(apart.start_BQ2[0], apart.start_BQ2[1])
    for prediction in (alike, shared):
        assert torch.equal(prediction.start_BQ2[0], prediction.start_BQ2[1])
        assert_close(spans_of(prediction, 0), spans_of(prediction, 1), rtol=1e-5, atol=1e-5)


@every_denoiser
def test_the_seed_moves_the_noise_of_every_query(name: str) -> None:
    model, batch = tiny_model(name), keyed((5, 5, 5, 5))
    one, same, other = (predict(model, batch, seed) for seed in (0, 0, 1))
    for row in (0, 2):  # samples long enough to differ
        assert torch.equal(spans_of(one, row), spans_of(same, row))
        assert not torch.allclose(one.start_BQ2[row], other.start_BQ2[row])


@every_denoiser
def test_keys_play_no_part_in_training(name: str) -> None:
    """So a run goes on to the bit, and a data set whose rows are renamed trains alike."""
    model = tiny_model(name, dropout=0.0, input_dropout=0.0).train()
    plain, named = (
        model.losses(batch, generator=torch.Generator().manual_seed(1)).total
        for batch in (keyed(()), keyed())
    )
    assert torch.equal(plain, named)


def test_a_key_is_the_same_on_every_machine_and_tells_queries_apart() -> None:
    assert noise_key(3, "park", "a dog runs") == 17857993000980092152  # blake2b of the identity as JSON
    others = [("3", "park", "a dog runs"), (3, "parka", " dog runs"), (3, "park", "a dog ran"), (3,)]
    assert len({noise_key(*other) for other in others} | {noise_key(3, "park", "a dog runs")}) == 5


def test_keys_of_other_samples_are_refused() -> None:
    with pytest.raises(FeatureError, match="noise_keys are one a sample or none, got 3 for 4"):
        keyed((1, 2, 3))


def calls(name: str, steps: int, samples: int) -> tuple[dict[str, int], list[torch.Size]]:
    """How often each part of a model ran, by its name, and the shapes that the parts of a step were given."""
    model = resampled(tiny_model(name), name, steps=steps)
    counted: dict[str, int] = {}
    shapes: list[torch.Size] = []

    def count(part: str):
        def hook(module: torch.nn.Module, given: tuple, result: object) -> None:
            counted[part] = counted.get(part, 0) + 1
            if part.split(".")[0] in DENOISERS[name] and part.count(".") < 2:
                shapes.extend(values.shape for values in given if isinstance(values, torch.Tensor))

        return hook

    for part, module in model.named_modules():
        if part:
            module.register_forward_hook(count(part))
    predict(model, replace(pick(keyed(), list(range(samples))), noise_keys=KEYS[:samples]))
    return counted, shapes


@every_denoiser
def test_the_condition_is_encoded_once_and_all_queries_and_proposals_denoise_together(name: str) -> None:
    once, _ = calls(name, steps=1, samples=4)
    often, shapes = calls(name, steps=7, samples=4)
    assert once.keys() == often.keys()
    stepped = {part for part in often if often[part] != once[part]}
    assert all(often[part] == 7 * once[part] for part in stepped)
    assert {part.split(".")[0] for part in stepped} == DENOISERS[name]
    assert calls(name, steps=7, samples=1)[0] == often  # more queries are more rows, not more calls
    assert shapes and all(4 in shape[:2] for shape in shapes)  # heads get (layers, queries, ...)
    config = tiny_model(name).config
    spans = {"momentdiff": "queries", "diffusion_vmr": "proposals"}.get(name)
    whole = (4, max(CLIPS), config.columns) if spans is None else (4, getattr(config, spans), 2)
    assert whole in {tuple(shape) for shape in shapes}


@every_denoiser
def test_other_steps_leave_the_model_as_it_was(name: str) -> None:
    model, batch = tiny_model(name), keyed()
    before = predict(model, batch)
    twin = resampled(model, name, steps=6)
    answer = predict(twin, batch)
    assert len(answer.trace) == 6 and len(before.trace) == model.config.steps == 3
    assert torch.equal(spans_of(predict(model, batch), 0), spans_of(before, 0))
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert all(ours[key] is theirs[key] for key in ours)


@pytest.mark.parametrize("name", ["momentdiff", "diffusion_vmr"])
def test_any_number_of_proposals_fits_the_same_weights(name: str) -> None:
    batch = keyed()
    few, many = (predict(resampled(tiny_model(name), name, proposals=count), batch) for count in (2, 40))
    assert few.spans_BQ2.shape == (4, 2, 2) and many.spans_BQ2.shape == (4, 40, 2)
    assert_close(many.start_BQ2[:, :2], few.start_BQ2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "wanted", "message"),
    [
        ("flashvtg", {}, {"steps": 3}, "flashvtg takes no number of steps"),
        ("moment_detr", {}, {"proposals": 3}, "moment_detr takes no number of proposals"),
        ("map_diffusion", {}, {"proposals": 3}, "may be changed after its training is steps"),
        (
            "diffusion_vmr",
            {"moments": "queries", "span_head": "refine"},
            {"proposals": 3},
            "takes no number of proposals",
        ),
        ("momentdiff", {}, {"steps": 0}, "steps must be at least 1, got 0"),
        ("momentdiff", {}, {"proposals": -1}, "proposals must be at least 1, got -1"),
        ("momentdiff", {}, {"steps": 1001}, "steps must lie in 1..noise_steps = 1000, got 1001"),
    ],
)
def test_a_number_that_a_model_cannot_take_is_refused(
    name: str, options: dict[str, object], wanted: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("..", r"\.\.")):
        resampled(tiny_model(name, **options), name, **wanted)
