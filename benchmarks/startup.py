"""How long `editkit log --json` takes to start, against importing its libraries.

    python benchmarks/startup.py [runs]

Both are whole processes, run in turn A B A B; medians and the median of the pairwise ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from editkit_store import open_store


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of a whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "history.db"
        open_store(store, write=True, create=True).close()
        imports = [sys.executable, "-c", "import duckdb, click, pydantic"]
        log = [sys.executable, "-m", "editkit_cli", "log", "--json", "--store", str(store)]
        seconds(imports), seconds(log)  # warm the file cache
        pairs = [(seconds(imports), seconds(log)) for _ in range(runs)]
    print(f"runs                         {runs}")
    print(f"import duckdb,click,pydantic {statistics.median(a for a, _ in pairs):.3f} s")
    print(f"editkit log --json           {statistics.median(b for _, b in pairs):.3f} s")
    print(f"ratio (median of pairs)      {statistics.median(b / a for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
