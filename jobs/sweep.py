"""Search over settings and mixtures with Ray Tune.

ray job submit --working-dir . -- python jobs/sweep.py tune_spaces/lora.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
