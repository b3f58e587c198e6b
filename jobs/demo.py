"""Finetune the embedded model on embedded data, then evaluate, register, serve and ask it: the whole road.

python jobs/demo.py [key=value ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import guarded

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    with guarded():
        from didact.connect import begin_early
        from didact.spec import FinetuneSpec, load_spec

        spec = load_spec(FinetuneSpec, root / "jobs" / "recipes" / "demo.yaml", sys.argv[1:])
        begin_early()
        from didact.demo import run_demo

        run_demo(spec, root / "serve" / "local.yaml", port=8123)
