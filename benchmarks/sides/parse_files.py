"""
Looks at exported files as Airflow 3.3 does, by its Python: each look in a fork of a process that has Airflow loaded.

    parse_files.py ROUNDS FILE…

Writes as JSON, by file, of each look: its milliseconds, how many modules it imported, and by how many MiB it grew. Each
look repeats the imports of a file, as in Airflow's DAG processor.

Not here: the files (benchmarks.parse).
"""

import json
import os
import sys
import time
from pathlib import Path


def resident() -> float:
    """Return how many MiB of memory this process has."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def look_at(file: str) -> tuple[float, int, float]:
    """Return the milliseconds that a fork of this process needs for a file, and the growth of the fork."""
    told, tells = os.pipe()
    child = os.fork()
    if not child:
        request = DagFileParseRequest(file=file, bundle_path=Path(file).parent, bundle_name="dags-folder")
        modules, before = len(sys.modules), resident()
        began = time.perf_counter()
        result = _parse_file(request, structlog.get_logger())
        took = 1000 * (time.perf_counter() - began)
        grown = [took, len(sys.modules) - modules, resident() - before]
        os.write(tells, json.dumps([grown, len(result.serialized_dags), result.import_errors]).encode())
        os._exit(0)
    os.close(tells)
    (took, modules, grown_by), dags, errors = json.loads(os.read(told, 65536))
    os.close(told)
    os.waitpid(child, 0)
    if dags != 1 or errors:
        raise SystemExit(f"{file} holds {dags} DAGs: {errors}")
    return took, modules, grown_by


if __name__ == "__main__":
    import structlog
    from airflow.dag_processing.processor import DagFileParseRequest, _parse_file, _pre_import_airflow_modules

    files = sys.argv[2:]
    for file in files:
        # The DAG processor does this before it forks.
        _pre_import_airflow_modules(file, structlog.get_logger())
        look_at(file)
    laps: dict[str, list[tuple[float, int, float]]] = {file: [] for file in files}
    for number in range(int(sys.argv[1])):
        for file in files if number % 2 else reversed(files):
            laps[file].append(look_at(file))
    print(json.dumps(laps))
