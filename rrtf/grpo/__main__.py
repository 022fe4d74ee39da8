"""`python -m rrtf.grpo FOLDER`: TRL's process, on the task that `grpo.train` left in the folder."""

import sys
from pathlib import Path

from rrtf.grpo import learn

if __name__ == "__main__":
    learn.learn(Path(sys.argv[1]))
