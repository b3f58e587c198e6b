"""Answer a file of prompts, JSON lines to JSON lines.

ray job submit --working-dir . -- python jobs/predict.py prompts.jsonl answers.jsonl --model demo
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
