"""
The metrics that long-running processes serve, each declared once: the reference page is generated from it.

The names are those of OpenTelemetry's conventions where they have one (cicd: release candidate; messaging:
development), and ours below `dkist.core.` otherwise. No attribute identifies a run. It is long, since it is one table.
Not here: their values (collect, consumer, dashboard, outbox, reconcile, watch).
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
# The bounds that the conventions advise for messaging, and for HTTP.
_SECONDS_OF_EXCHANGE = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

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

_OF_CONSUMER = (semconv.MESSAGING_CONSUMER_GROUP_NAME,)
_OF_OPERATION = (semconv.MESSAGING_SYSTEM, semconv.MESSAGING_OPERATION_NAME)
CONSUMED_MESSAGES = Metric(
    "messaging.client.consumed.messages",
    Kind.COUNTER,
    _MESSAGE,
    "Messages that this process has received from the bus.",
    (*_OF_CONSUMER, *_OF_OPERATION, semconv.MESSAGING_DESTINATION_NAME),
)
PROCESS_DURATION = Metric(
    "messaging.process.duration",
    Kind.HISTOGRAM,
    "s",
    "The durations of calls of handlers; with `error.type` those that failed. A call may have many events.",
    (*_OF_CONSUMER, *_OF_OPERATION, semconv.HANDLER, semconv.ERROR_TYPE),
    _SECONDS_OF_EXCHANGE,
)
INBOX_MESSAGES = Metric(
    "dkist.core.inbox.messages",
    Kind.UP_DOWN_COUNTER,
    _MESSAGE,
    "Messages in the inbox that are not handled, by their state; dead ones are the dead letters.",
    (*_OF_CONSUMER, semconv.INBOX_STATE),
)
CONSUMER_LAG = Metric(
    "dkist.core.consumer.lag",
    Kind.GAUGE,
    "s",
    "The time since the oldest message was received that is due and not handled; 0 if there is none.",
    _OF_CONSUMER,
)
CONSUMER_BACKLOG = Metric(
    "dkist.core.consumer.backlog",
    Kind.UP_DOWN_COUNTER,
    _MESSAGE,
    "Messages that wait on the bus for the consumer, as of the last ten seconds; only in the process that receives.",
    (*_OF_CONSUMER, semconv.MESSAGING_DESTINATION_NAME),
)
CONSUMER_CONNECTED = Metric(
    "dkist.core.consumer.connected",
    Kind.GAUGE,
    "",
    "1 if the bus or the inbox can be used now, 0 if not.",
    (*_OF_CONSUMER, semconv.CONSUMER_PEER),
)
OF_CONSUMERS = (
    CONSUMED_MESSAGES,
    PROCESS_DURATION,
    INBOX_MESSAGES,
    CONSUMER_LAG,
    CONSUMER_BACKLOG,
    CONSUMER_CONNECTED,
)
"""What `consume` and `collect` serve."""

_OF_OUTBOX = (semconv.OUTBOX, semconv.SERVER_ADDRESS, semconv.SERVER_PORT)
_OF_SENDING = (
    *_OF_OPERATION,
    semconv.MESSAGING_DESTINATION_NAME,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
    semconv.ERROR_TYPE,
)
_OF_SIGNAL = (semconv.OUTBOX, semconv.SIGNAL)
OUTBOX_PUBLISHED = Metric(
    "dkist.core.outbox.published",
    Kind.COUNTER,
    _MESSAGE,
    "Messages that the processes of this host have published.",
    _OF_OUTBOX,
)
OUTBOX_CONFIRMED = Metric(
    "dkist.core.outbox.confirmed", Kind.COUNTER, _MESSAGE, "Messages that the broker has confirmed.", _OF_OUTBOX
)
OUTBOX_PENDING = Metric(
    "dkist.core.outbox.pending",
    Kind.UP_DOWN_COUNTER,
    _MESSAGE,
    "Messages that wait for the broker, with those in spare journals.",
    _OF_OUTBOX,
)
OUTBOX_SET_ASIDE = Metric(
    "dkist.core.outbox.set_aside", Kind.UP_DOWN_COUNTER, _MESSAGE, "Messages that the broker has refused.", _OF_OUTBOX
)
OUTBOX_OLDEST = Metric(
    "dkist.core.outbox.oldest.time",
    Kind.GAUGE,
    "s",
    "The time since which the oldest message is pending, in seconds since 1970, for each outbox of the host, also for "
    "one that no relay delivers; left out if none is.",
    _OF_OUTBOX,
)
SENT_MESSAGES = Metric(
    "messaging.client.sent.messages",
    Kind.COUNTER,
    _MESSAGE,
    "Messages that this process has sent to the broker; with `error.type` those that it refused.",
    _OF_SENDING,
)
OPERATION_DURATION = Metric(
    "messaging.client.operation.duration",
    Kind.HISTOGRAM,
    "s",
    "The times from sending a message until the broker's answer; with `error.type` those of refusals.",
    _OF_SENDING,
    _SECONDS_OF_EXCHANGE,
)
TELEMETRY_PENDING = Metric(
    "dkist.core.telemetry.pending",
    Kind.UP_DOWN_COUNTER,
    _ITEM,
    "Spans, log records and metric points that wait for the collector.",
    _OF_SIGNAL,
)
TELEMETRY_DELIVERED = Metric(
    "dkist.core.telemetry.delivered", Kind.COUNTER, _ITEM, "Those that the collector has accepted.", _OF_SIGNAL
)
TELEMETRY_REFUSED = Metric(
    "dkist.core.telemetry.refused", Kind.COUNTER, _ITEM, "Those that the collector has refused.", _OF_SIGNAL
)
TELEMETRY_DROPPED = Metric(
    "dkist.core.telemetry.dropped",
    Kind.COUNTER,
    _ITEM,
    "Those that were dropped, undelivered, at the limits of size, age and disk.",
    _OF_SIGNAL,
)
OF_RELAY = (
    OUTBOX_PUBLISHED,
    OUTBOX_CONFIRMED,
    OUTBOX_PENDING,
    OUTBOX_SET_ASIDE,
    OUTBOX_OLDEST,
    SENT_MESSAGES,
    OPERATION_DURATION,
    TELEMETRY_PENDING,
    TELEMETRY_DELIVERED,
    TELEMETRY_REFUSED,
    TELEMETRY_DROPPED,
)
"""What `outbox relay` serves, of its outbox and of the journal of telemetry that it delivers."""

RECONCILE_CONNECTED = Metric(
    "dkist.core.reconcile.connected",
    Kind.GAUGE,
    "",
    "1 if Airflow's REST API has answered the last round of requests, 0 if not.",
)
RECONCILE_FAILED = Metric(
    "dkist.core.reconcile.failed",
    Kind.COUNTER,
    "{round}",
    "Rounds of requests that Airflow's REST API did not answer.",
)
RECONCILE_ENDS = Metric(
    "dkist.core.reconcile.ends",
    Kind.COUNTER,
    _RUN,
    "Ends of runs that no callback of Airflow had reported, and that this process has published.",
)
RECONCILE_WAITING = Metric(
    "dkist.core.reconcile.waiting",
    Kind.UP_DOWN_COUNTER,
    _RUN,
    "Runs without an end that Airflow does not run, or about which it did not answer, as of the last round.",
)
OF_RECONCILIATION = (RECONCILE_CONNECTED, RECONCILE_FAILED, RECONCILE_ENDS, RECONCILE_WAITING)
"""What `watch` serves where the settings name an Airflow."""

_ALARM, _START = "{alarm}", "{start}"
_OF_ALARM = (semconv.PIPELINE_NAME, semconv.ALARM_KIND)
ALARM_ACTIVE = Metric(
    "dkist.core.alarm.active",
    Kind.UP_DOWN_COUNTER,
    _ALARM,
    "Attempts and runs that are overdue.",
    _OF_ALARM,
)
ALARM_RAISED = Metric(
    "dkist.core.alarm.raised",
    Kind.COUNTER,
    _ALARM,
    "Alarms about attempts and runs that this process has published.",
    _OF_ALARM,
)
ALARM_WITHDRAWN = Metric(
    "dkist.core.alarm.withdrawn",
    Kind.COUNTER,
    _ALARM,
    "Withdrawals of such alarms that this process has published.",
    _OF_ALARM,
)
START_MISSING = Metric(
    "dkist.core.start.missing",
    Kind.UP_DOWN_COUNTER,
    _START,
    "Entries of the file of expected starts of which the last start is late, and no run has begun since; 0 for a "
    "workflow that is on time.",
    (semconv.PIPELINE_NAME,),
)
START_MISSED = Metric(
    "dkist.core.start.missed",
    Kind.COUNTER,
    _START,
    "Expected starts that were missed, as this process has published them.",
    (semconv.PIPELINE_NAME,),
)
JUDGED_TIME = Metric(
    "dkist.core.watch.judged.time",
    Kind.GAUGE,
    "s",
    "The time up to which all reports are known and judged, in seconds since 1970; before the first judgement, the "
    "start of the process.",
)
LISTENING_TIME = Metric(
    "dkist.core.watch.listening",
    Kind.COUNTER,
    "s",
    "The time since the start of this process, by whether the store was complete: absence counts only then.",
    (semconv.LISTENING_STATE,),
)
OF_WATCH = (
    ALARM_ACTIVE,
    ALARM_RAISED,
    ALARM_WITHDRAWN,
    START_MISSING,
    START_MISSED,
    JUDGED_TIME,
    LISTENING_TIME,
)
"""What only `watch` serves."""

_VIEWER = "{viewer}"
REQUEST_DURATION = Metric(
    "http.server.request.duration",
    Kind.HISTOGRAM,
    "s",
    "The times from a request to the end of its answer, without the streams of live pages.",
    (
        semconv.HTTP_REQUEST_METHOD,
        semconv.HTTP_ROUTE,
        semconv.HTTP_STATUS,
        semconv.URL_SCHEME,
        semconv.ERROR_TYPE,
    ),
    _SECONDS_OF_EXCHANGE,
)
VIEWER_ACTIVE = Metric(
    "dkist.core.viewer.active",
    Kind.UP_DOWN_COUNTER,
    _VIEWER,
    "Viewers that follow a live page now.",
)
VIEWER_DROPPED = Metric(
    "dkist.core.viewer.dropped",
    Kind.COUNTER,
    _VIEWER,
    "Viewers whose connection was closed, since they did not read for some seconds what was sent to them.",
)
OF_DASHBOARD = (REQUEST_DURATION, VIEWER_ACTIVE, VIEWER_DROPPED)
"""What only `dashboard` serves."""
