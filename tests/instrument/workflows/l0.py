"""
A workflow from raw frames to calibrated ones, and a workflow of one task.
"""

from dkist_processing_core import ResourceQueue, Workflow
from tests.instrument.tasks import Calibrate, Parse, Teardown

calibration = Workflow(
    input_data="l0", output_data="l1", category="instrument", detail="full", workflow_package=__package__
)
calibration.add_node(task=Parse, upstreams=None)
calibration.add_node(
    task=Calibrate, upstreams=Parse, resource_queue=ResourceQueue.HIGH_MEMORY, pip_extras=["asdf", "quality"]
)
calibration.add_node(task=Teardown, upstreams=[Parse, Calibrate], resource_queue=None, pip_extras=None)

parse = Workflow(input_data="l0", output_data="l1", category="instrument", detail="parse", workflow_package=__package__)
parse.add_node(Parse)
