"""One recipe in many variants, laid beside each other.

ray job submit --working-dir . -- python jobs/study.py studies/embedded.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))

from didact.cli import main

if __name__ == "__main__":
    main(["study", "run", *sys.argv[1:]])
