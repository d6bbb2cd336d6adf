"""Train the toy in child processes that are killed at random instants, until one of them finishes.

Runs on its own, so that the process which forks holds torch and nothing else. Arguments: folder, seed.
Prints how many children were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from momentkit.train.checkpoint import has_state, remove_leftovers
from momentkit.train.options import TrainConfig
from train_toy import toy_trainer

OPTIONS = TrainConfig(
    epochs=4,
    batch_size=5,
    learning_rate=1e-2,
    clip_norm=1.0,
    schedule="cosine",
    ema_decay=0.9,
    select_by=("figure",),
    threads=1,
    checkpoint_steps=1,  # saving is what a kill hits most often here
)
MAX_KILLS = 8
LONGEST_S = 0.3


def train_in_child(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        remove_leftovers(folder)
        resume = has_state(folder)
        toy_trainer(folder, OPTIONS).fit(resume=resume)
        os._exit(0)
    return child


def main(folder: Path, chance: random.Random) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for kills in range(MAX_KILLS + 1):
        child = train_in_child(folder)
        if kills < MAX_KILLS:
            time.sleep(chance.uniform(0.02, LONGEST_S))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("the child that nobody kills did not finish")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), random.Random(int(sys.argv[2]))))
