"""Measure a base, and an adapter beside it.

ray job submit --working-dir . -- python jobs/evaluation.py jobs/evaluations/demo.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
