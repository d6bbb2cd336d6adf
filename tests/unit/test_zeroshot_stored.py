"""`momentkit eval zeroshot`: stored features of one dual encoder are enough, others are refused."""

from pathlib import Path

import pytest

from momentkit.core.errors import ConfigError, FeatureMismatchError
from momentkit.train.compare import MODEL, OTHER_TEXT, PRIOR, compare
from train_data import write_config, write_data


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Words that are the mark of their clips, as a dual encoder would have them."""
    write_data(tmp_path / "data")
    path = write_config(tmp_path / "c.toml", tmp_path / "data")
    text = path.read_text().replace("toy/words", "toy/frames")
    path.write_text(text.replace("clip_length_s = 1.0", "clip_length_s = 1.0\ntef = false"))
    return path


def test_sentences_find_the_clips_they_resemble(config: Path) -> None:
    figures = compare("zeroshot", config).figures
    for other in (PRIOR, OTHER_TEXT):
        assert figures[MODEL]["MR-full-mIoU"] > figures[other]["MR-full-mIoU"] + 10, other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"toy/frames", layer', '"toy/words", layer'), "toy/frames and toy/words"),
        (("tef = false", ""), "time"),
    ],
)
def test_features_of_other_spaces_are_refused(config: Path, change: tuple[str, str], said: str) -> None:
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(FeatureMismatchError, match=said):
        compare("zeroshot", config)


def test_without_weights_the_data_must_be_named() -> None:
    with pytest.raises(ConfigError, match="nothing says how the data of zeroshot is read"):
        compare("zeroshot")
