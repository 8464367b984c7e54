"""A gallery's speed, as `vireid bench search` measures it: ratios to NumPy, faiss, pymilvus and bare loops.

python benchmarks/search.py           # all areas: 100,000 × 2048, 1,000,000 × 512, …; takes what `vireid bench` does
python benchmarks/search.py --quick   # seconds; every option of `vireid bench search` is taken
"""

from __future__ import annotations

import sys

from vireid.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "search", *sys.argv[1:]]))
