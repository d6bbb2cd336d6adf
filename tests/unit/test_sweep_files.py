"""Every sweep file we ship is read and every row of it builds its model."""

from functools import cache
from pathlib import Path

import pytest
import torch

from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config
from momentkit.train.sweep import Sweep, read_sweep, runs_of

read = cache(read_sweep)
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.toml"))
# Tables of the papers: file -> rows. Figures 4 to 10 of the papers show the same runs as these.
TABLES = {
    "diffusion_vmr_steps": 6, "diffusion_vmr_components": 6, "diffusion_vmr_losses": 6,
    "diffusion_vmr_training": 2, "diffusion_vmr_proposals": 14,
    "momentdiff_span_embedding": 2, "momentdiff_scale": 3, "momentdiff_intensity": 2, "momentdiff_losses": 3,
    "momentdiff_spans": 4, "momentdiff_steps": 5, "momentdiff_shift": 6,
    "ld_detr_distill_align": 14, "ld_detr_memory": 13, "ld_detr_distill_share": 11, "ld_detr_convolutions": 7,
    "ld_detr_conv_place": 5, "ld_detr_fuser_parts": 6, "ld_detr_loops": 50,
    "map_diffusion_condition": 5, "map_diffusion_objective": 3, "map_diffusion_time": 4,
    "flashvtg_components": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files name their configurations from there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_of_a_sweep_builds_its_model(path: Path) -> None:
    sweep = read(path)
    runs = [run for run in runs_of(sweep, Path("out")) if run.seed == sweep.seeds[0]]
    assert len({run.folder for run in runs}) == len(runs), "two rows share a folder"
    shapes = {}
    for run in runs:
        with torch.device("meta"):
            model = create_run_model(read_run_config(run.config, run.settings))
        shapes[run.row.name] = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    for run in runs:
        if run.row.weights_of:
            assert shapes[run.row.name] == shapes[run.row.weights_of], "the weights do not fit"


def test_each_ablation_table_has_its_file_and_its_rows() -> None:
    rows = {path.stem: len(read(path).row) for path in FILES if not path.stem.startswith("charades_clip")}
    assert rows == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_each_row_carries_figures_of_the_paper_that_the_table_shows(name: str) -> None:
    sweep: Sweep = read(ROOT / "sweeps" / f"{name}.toml")
    assert len({(row.config, row.set) for row in sweep.row}) == len(sweep.row), "two rows are the same run"
    if name == "diffusion_vmr_proposals":  # a figure without numbers
        return
    for row in sweep.row:
        assert row.paper and set(row.paper) <= set(sweep.figures)
        assert all(0 < float(value.split(" ± ")[0]) < 100 for value in row.paper.values())
