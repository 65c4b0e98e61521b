"""
Many runs of one workflow that fail at once: Airflow passes all of their ends to one process, which has limited time.

The test is long, so only `make soak` runs it.
"""

import pytest

from dkist_processing_core.runs import State
from tests.airflow.ground import ENDS_OF_RUN, Ground
from tests.waiting import wait_until

RUNS = 40
SECONDS = 420.0


@pytest.mark.soak
def test_forty_runs_that_fail_at_once_all_have_an_end_and_one_announcement(ground: Ground) -> None:
    """
    Airflow's time limit for callbacks loses no end, and no failure is announced twice.
    """
    dag_id = "faulty_raises_1.0"
    ground.airflow.wait_for_dag(dag_id)
    run_ids = [ground.airflow.trigger(dag_id, {"recipe_run_id": ground.next_number()}) for _ in range(RUNS)]

    def ended() -> set[str]:
        arrivals = list(ground.listener.arrivals)
        return {arrival.event.run_id for arrival in arrivals if arrival.event.name in ENDS_OF_RUN}

    wait_until(lambda: set(run_ids) <= ended(), SECONDS, every=1.0)
    announced = [run_id for run_id in ground.listener.announced() if run_id in run_ids]

    assert sorted(announced) == sorted(run_ids)
    assert {ground.listener.view(run_id).state for run_id in run_ids} == {State.FAILED}
