"""
Tasks of the pipeline.
"""

from tests.instrument.base import InstrumentTask


class Parse(InstrumentTask):
    """
    Reads.
    """

    record_provenance = True

    def run(self) -> None:
        """
        Count the files that are read.
        """
        with self.telemetry_span("Read"):
            self.read_counter.add(amount=4, attributes=self.base_telemetry_attributes)
        self.log.append("run")


class Calibrate(Parse):
    """
    Has retries.
    """

    retries = 2
    retry_delay_seconds = 30


class Teardown(Parse):
    """
    Is the last task.
    """
