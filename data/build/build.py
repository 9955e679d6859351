"""Rebuilds everything under data/: the texts byte for byte, the checkpoints to the same evaluation loss.

python data/build/build.py                 texts and checkpoints (about half an hour on two cores)
python data/build/build.py --texts-only    the texts alone (about a minute)
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXTS = (
    "openwebtext.py",
    "imdb.py",
    "reviews.py",
    "mrpc.py",
    "documents.py",
    "ner.py",
    "squad.py",
    "beekeeping.py",
    "preferences.py",
    "instructions.py",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts-only", action="store_true", help="leave the checkpoints as they are")
    arguments = parser.parse_args()
    for program in TEXTS if arguments.texts_only else (*TEXTS, "pretrain.py", "llama.py", "chat.py"):
        print(f"--- {program}", flush=True)
        # One process each: none depends on what another left in memory, and a failure stops the rest.
        subprocess.run([sys.executable, HERE / program], check=True)


if __name__ == "__main__":
    main()
