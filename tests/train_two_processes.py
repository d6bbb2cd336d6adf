"""What torchrun starts in the test of two processes: a run of the toy without chance, then a real one.

Arguments: folder of the toy run, configuration, folder of the real run.
"""

import sys
from pathlib import Path

from momentkit.train.run import run_training
from momentkit.train.run_config import read_run_config
from train_toy import SEPARABLE, toy_trainer

if __name__ == "__main__":
    toy_folder, config, folder = map(Path, sys.argv[1:])
    toy_trainer(toy_folder, SEPARABLE, chance=False).fit()
    run_training(read_run_config(config), folder)
