"""Each store of a gallery is filled, its writer is killed, filled to the end, searched, and compared with a plain loop.

`vireid bench store` does it. This calls it for a folder, for milvus-lite's server, and for a real Milvus server in a
network namespace of its own, if their programs are there.

    python benchmarks/stores.py                                  # 20,000 × 512: minutes
    python benchmarks/stores.py --rows 100000 --width 2048       # what docs/gallery.md shows
    python benchmarks/stores.py --stores folder                  # only one of them
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.gallery import servers
from vireid.cli.main import main as vireid

STORES = ("folder", "milvus-lite", "milvus")
PORT = 19530
HOURS = 2 * 3600


def fill(url: str, rows: int, width: int) -> None:
    """Measure one store, and print what it says."""
    if code := vireid(["bench", "store", "--store", url, "--rows", str(rows), "--width", str(width)]):
        sys.exit(code)


def inside(folder: Path, rows: int, width: int) -> None:
    """What is done in the namespace: start Milvus, and measure it."""
    with servers.milvus(folder / "milvus", PORT):
        fill(f"milvus://127.0.0.1:{PORT}/bench", rows, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000, help="vectors (20000)")
    parser.add_argument("--width", type=int, default=512, help="numbers of a vector (512)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = options.rows, options.width
    if options.inside is not None:
        inside(options.inside, *sizes)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for store in options.stores:
            print(f"\n{store}, {sizes[0]:,} × {sizes[1]}", flush=True)
            if store == "folder":
                fill(str(folder / "gallery"), *sizes)
            elif store == "milvus-lite" and servers.LITE.exists():
                with servers.lite(folder / "lite") as (port, _):
                    fill(f"milvus://127.0.0.1:{port}/bench", *sizes)
            elif store == "milvus" and servers.MILVUS.exists() and servers.has_namespaces():
                words = ["--rows", str(sizes[0]), "--width", str(sizes[1]), "--inside", folder]
                done = servers.in_a_namespace([sys.executable, __file__, *words], seconds=HOURS)
                print(done.stdout)
                if done.returncode:
                    sys.exit(done.stderr[-2000:])
            else:
                print("not measured: its program is not installed, or network namespaces are not allowed")


if __name__ == "__main__":
    main()
