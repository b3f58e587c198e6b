"""Finetune, evaluate and register one recipe.

ray job submit --working-dir . -- python jobs/finetune.py jobs/recipes/demo.yaml training.steps=100
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
