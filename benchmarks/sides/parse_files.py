"""
Looks at exported files as Airflow 3.3 does, by its Python: each look in a fork of a process that has Airflow loaded.

    parse_files.py ROUNDS FILE…

Writes the milliseconds of each look as JSON, by file. What a file imports is imported by each look anew, as in
Airflow's DAG processor. Not here: the files (benchmarks.parse).
"""

import json
import os
import sys
import time
from pathlib import Path


def look_at(file: str) -> float:
    """Return for how many milliseconds a fork of this process is busy with a file."""
    told, tells = os.pipe()
    child = os.fork()
    if not child:
        request = DagFileParseRequest(file=file, bundle_path=Path(file).parent, bundle_name="dags-folder")
        began = time.perf_counter()
        result = _parse_file(request, structlog.get_logger())
        took = 1000 * (time.perf_counter() - began)
        os.write(tells, json.dumps([took, len(result.serialized_dags), result.import_errors]).encode())
        os._exit(0)
    os.close(tells)
    milliseconds, dags, errors = json.loads(os.read(told, 65536))
    os.close(told)
    os.waitpid(child, 0)
    if dags != 1 or errors:
        raise SystemExit(f"{file} holds {dags} DAGs: {errors}")
    return float(milliseconds)


if __name__ == "__main__":
    import structlog
    from airflow.dag_processing.processor import DagFileParseRequest, _parse_file, _pre_import_airflow_modules

    files = sys.argv[2:]
    for file in files:
        # As the DAG processor does before it forks.
        _pre_import_airflow_modules(file, structlog.get_logger())
        look_at(file)
    laps: dict[str, list[float]] = {file: [] for file in files}
    for number in range(int(sys.argv[1])):
        for file in files if number % 2 else reversed(files):
            laps[file].append(look_at(file))
    print(json.dumps(laps))
