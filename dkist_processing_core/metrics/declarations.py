"""
The metrics that long-running processes serve, each declared once: the reference page is generated from it.

The names are those of OpenTelemetry's conventions where they have one (cicd: release candidate; messaging:
development), and ours below `dkist.core.` otherwise. No attribute identifies a run. Not here: their values (collect,
consumer, outbox).
"""

from dkist_processing_core import semconv
from dkist_processing_core.metrics.measurement import Kind, Metric

_OF_TASK = (semconv.PIPELINE_NAME, semconv.PIPELINE_TASK_NAME)
_OF_RESULT = (*_OF_TASK, semconv.PIPELINE_TASK_RUN_RESULT)
_ATTEMPT, _RUN, _MESSAGE, _ITEM = "{attempt}", "{run}", "{message}", "{item}"
_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
_SECONDS_OF_PREPARATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SECONDS_IN_QUEUE = (0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400, 43200)
# 64 MiB to 256 GiB.
_BYTES = tuple(float(1 << power) for power in range(26, 39, 2))
# The bounds that the conventions advise for messaging.
_SECONDS_OF_MESSAGING = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

ATTEMPT_ENDED = Metric(
    "dkist.core.attempt.ended",
    Kind.COUNTER,
    _ATTEMPT,
    "Attempts that have ended, each once, with the outcome on which its reports agree.",
    (*_OF_RESULT, semconv.ERROR_TYPE),
)
ATTEMPT_REVISED = Metric(
    "dkist.core.attempt.revised",
    Kind.COUNTER,
    _ATTEMPT,
    "Attempts of which a report showed another outcome or cause after they were counted.",
    _OF_TASK,
)
ATTEMPT_DURATION = Metric(
    "dkist.core.attempt.duration",
    Kind.HISTOGRAM,
    "s",
    "The durations of attempts, without the preparation of their environments.",
    _OF_RESULT,
    _SECONDS,
)
ENVIRONMENT_DURATION = Metric(
    "dkist.core.attempt.environment.duration",
    Kind.HISTOGRAM,
    "s",
    "The times to find or build the environment of an attempt.",
    (*_OF_TASK, semconv.ENVIRONMENT_STATE),
    _SECONDS_OF_PREPARATION,
)
QUEUE_DURATION = Metric(
    "dkist.core.attempt.queue.duration",
    Kind.HISTOGRAM,
    "s",
    "The times that attempts waited for a worker.",
    _OF_TASK,
    _SECONDS_IN_QUEUE,
)
PEAK_MEMORY = Metric(
    "dkist.core.attempt.memory.peak",
    Kind.HISTOGRAM,
    "By",
    "The peak memory of attempts, of one process of each.",
    _OF_TASK,
    _BYTES,
)
ATTEMPT_ACTIVE = Metric(
    "dkist.core.attempt.active",
    Kind.UP_DOWN_COUNTER,
    _ATTEMPT,
    "Attempts that have not ended.",
    (*_OF_TASK, semconv.ATTEMPT_STATE),
)
RUN_DURATION = Metric(
    "cicd.pipeline.run.duration",
    Kind.HISTOGRAM,
    "s",
    "The durations of runs whose end an engine has reported.",
    (semconv.PIPELINE_NAME, semconv.PIPELINE_RUN_STATE, semconv.PIPELINE_RESULT),
    _SECONDS,
)
RUN_ACTIVE = Metric(
    "cicd.pipeline.run.active",
    Kind.UP_DOWN_COUNTER,
    _RUN,
    "Runs that have not ended.",
    (semconv.PIPELINE_NAME, semconv.PIPELINE_RUN_STATE),
)
LAST_EVENT = Metric(
    "dkist.core.workflow.last_event.time",
    Kind.GAUGE,
    "s",
    "The time of the last event of a workflow, in seconds since 1970.",
    (semconv.PIPELINE_NAME,),
)
OF_ATTEMPTS = (
    ATTEMPT_ENDED,
    ATTEMPT_REVISED,
    ATTEMPT_DURATION,
    ENVIRONMENT_DURATION,
    QUEUE_DURATION,
    PEAK_MEMORY,
    ATTEMPT_ACTIVE,
    RUN_DURATION,
    RUN_ACTIVE,
    LAST_EVENT,
)
"""What only `collect` serves, from its store."""
