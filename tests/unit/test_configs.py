"""Every configuration file that we ship is read and builds its model."""

from pathlib import Path

import pytest
import torch

from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_builds_its_model(path: Path) -> None:
    config = read_run_config(path)
    with torch.device("meta"):
        model = create_run_model(config)
    assert model.config.video_dim == config.data.contract.video_dim
