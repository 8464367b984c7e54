"""How much memory k-reciprocal re-ranking needs, beside the matrices of all pairs that its textbook form keeps.

    python benchmarks/reranking_memory.py                    # 10,000 queries × 10,000 gallery pictures: minutes
    python benchmarks/reranking_memory.py --pictures 2000

It is a count: what the peak of the process has grown by. `vireid bench reranking` measures the time.
"""

from __future__ import annotations

import argparse
import resource

from vireid.bench.areas.reranking import features
from vireid.evaluation.reranking import k_reciprocal

MIB = 2**20


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000, help="queries, and gallery pictures (10000)")
    count = parser.parse_args().pictures
    k_reciprocal(features(64, 1), features(64, 2))  # compile
    query, gallery = features(count, 1), features(count, 2)
    before = peak()
    k_reciprocal(query, gallery)
    print(f"k-reciprocal, {count:,} × {count:,}: {peak() - before:,.0f} MiB above the {before:,.0f} MiB before")
    print(f"a matrix of all pairs has {4 * (2 * count) ** 2 / MIB:,.0f} MiB; the textbook form keeps four")


if __name__ == "__main__":
    main()
