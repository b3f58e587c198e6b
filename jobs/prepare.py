"""Convert and tokenize a recipe's data over the cluster, before anything trains on it.

ray job submit --working-dir . -- python jobs/prepare.py jobs/recipes/demo.yaml data.seed=1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["data", "prepare", "--ray", *sys.argv[1:]])
