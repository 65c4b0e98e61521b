"""
A small calibration of real full-disk images of the Sun, as an example of a pipeline.

Not here: what the tasks do, see `solar_calibration.tasks`.
"""

from dkist_processing_core import ResourceQueue, Workflow
from solar_calibration.tasks import (
    AlignFrames,
    CorrectFrames,
    EstimateBackground,
    EstimateFlat,
    FitLimb,
    MakeContactSheet,
    MeasureQuality,
    ParseFrames,
)

__all__ = ["workflow"]

workflow = Workflow(
    input_data="raw",
    output_data="l1",
    category="solar",
    detail="calibration",
    workflow_package=__package__,
)
workflow.add_node(ParseFrames, upstreams=None)
workflow.add_node(EstimateBackground, upstreams=ParseFrames)
workflow.add_node(EstimateFlat, upstreams=ParseFrames)
workflow.add_node(CorrectFrames, upstreams=[EstimateBackground, EstimateFlat])
workflow.add_node(FitLimb, upstreams=CorrectFrames)
workflow.add_node(MeasureQuality, upstreams=CorrectFrames)
workflow.add_node(AlignFrames, upstreams=FitLimb, resource_queue=ResourceQueue.HIGH_MEMORY)
workflow.add_node(MakeContactSheet, upstreams=[AlignFrames, MeasureQuality])
