"""
`dkist-core consume` runs a consumer as a service: its signals, its log, its exit codes and its health.
"""

import json
import re
import signal
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

from dkist_processing_core import Consumer
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.metrics.serving import served
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.running import command, run_command
from tests.waiting import wait_until

PROGRAM = """
from dkist_processing_core import Consumer

announcer = Consumer("announcer", max_tries=2, first_pause=0.0, longest_pause=0.0)
other = Consumer("other")


@announcer.on("task.failed")
def announce(failure):
    print(failure.task_name, flush=True)
    if failure.task_name == "Bad":
        raise RuntimeError("no answer from https://user:secret@host")


@other.on()
def ignore(event):
    pass
"""

ENDLESS = """
import threading
from dkist_processing_core import Consumer

announcer = Consumer("announcer")

@announcer.on("task.failed")
def announce(failure):
    print("called", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A folder with a script that defines two consumers.
    """
    (tmp_path / "actors.py").write_text(PROGRAM)
    return tmp_path


@contextmanager
def service(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """
    Run the command as a service, and kill it in the end if it is still running.
    """
    with subprocess.Popen(
        command("consume", "actors:announcer", *options),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def publish(*names: str) -> None:
    """
    Put failures of tasks on the embedded journal.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*map(failed, names))


def until(process: "subprocess.Popen[str]", text: str) -> str:
    """
    Read the log of a service up to a line with a text, and return that line.
    """
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the log has no {text!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_ends_in_good_order_by_a_signal(folder: Path, number: signal.Signals) -> None:
    """
    Its log has one line at its start and one at its end, and the exit code is 0, also if the signal comes twice.
    """
    with service(folder) as process:
        began = until(process, "receives from the embedded")
        publish("A")
        assert process.stdout is not None
        assert process.stdout.readline() == "A\n"
        process.send_signal(number)
        process.send_signal(number)
        _, log = process.communicate(timeout=300)

    assert began.startswith("INFO dkist_processing_core.consumer: the consumer 'announcer' receives from the embedded")
    assert log.endswith("the consumer 'announcer' has ended; handled: 1, failed tries: 0, dead: 0\n")
    assert process.returncode == 0


def test_a_call_for_cron_ends_when_nothing_is_left(folder: Path) -> None:
    """
    Past events are taken in on request; a failure is a line without secrets.
    """
    publish("Bad", "A")

    ran = run_command("consume", "actors.py:announcer", "--since", "1h", "--until-idle", "--workers", "2", cwd=folder)

    assert sorted(ran.stdout.split()) == ["A", "Bad", "Bad"]
    assert ran.returncode == 0
    assert "announce has failed for task.failed r/Bad/1: RuntimeError: no answer from https://" in ran.stderr
    assert "the event is the dead letter i1 after 2 tries" in ran.stderr
    assert "secret" not in ran.stderr


def test_the_lines_of_json_of_a_handler_name_the_run_of_its_event(folder: Path) -> None:
    """
    The line about a failed call has the fields of the attempt, and those of the service itself have none.
    """
    publish("Bad")

    options = ("--since", "1h", "--until-idle")
    ran = run_command("consume", "actors.py:announcer", *options, cwd=folder, DKIST_CORE_LOG_FORMAT="json")

    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    of_handler = [line for line in lines if line["message"].startswith("announce has failed")]
    others = [line for line in lines if line not in of_handler]
    fields = {"workflow": "W", "version": "1", "run_id": "r", "recipe_run_id": 1, "task": "Bad", "attempt": 1}
    assert [{name: line.get(name) for name in fields} for line in of_handler] == [fields] * 2
    assert others
    assert not any(fields.keys() & line.keys() for line in others)


def test_the_example_counts_failures_in_its_inbox(state_dir: Path) -> None:
    """
    It announces those that no other attempt follows.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*[failed("Parse", workflow_name="l0_to_l1_x", attempt=number) for number in (1, 2)])
        publisher.publish(failed("Parse", workflow_name="l2"))

    ran = run_command("consume", "examples/consumers/announcer.py", "--since", "first", "--until-idle")

    with closing(sqlite3.connect(state_dir / "inbox.db")) as inbox:
        assert inbox.execute("SELECT * FROM failures").fetchall() == [("Parse", 2)]
    assert [line.partition(":")[0] for line in ran.stdout.splitlines()] == ["l0_to_l1_x/Parse"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["actors"], "the consumers in actors are: announcer, other; name one, for example actors:announcer"),
        (["actors:ignore"], "actors:ignore is a function, expected a Consumer; the consumers in actors are"),
        (["actors:nothing"], "actors has no 'nothing'; the consumers in actors are: announcer, other"),
        (["a b"], "found 'a b', expected MODULE:CONSUMER, for example my_package.consumers:announcer"),
        (["actors:other", "--since", "soon"], "found 'soon', expected a number followed by s, m, h or d"),
        (["actors:other", "--health", "x"], "health is 'x', expected PORT or HOST:PORT"),
        (["actors:other", "--listen", "::1:80"], "listen is '::1:80', expected PORT or HOST:PORT"),
        (["actors:other", "--listen", "1", "--health", "2"], "found --health and --listen, expected one of them"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(folder: Path, arguments: list[str], message: str) -> None:
    """
    The message states what is expected.
    """
    ran = run_command("consume", *arguments, cwd=folder)

    assert ran.returncode == 2
    assert message in " ".join(ran.stderr.split())


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        (
            "import nowhere",
            2,
            "wrong cannot be imported: ModuleNotFoundError: No module named 'nowhere' ({file}, line 1)",
        ),
        ("import sys\nsys.exit()", 2, "wrong cannot be imported: SystemExit ({file}, line 2)"),
        ("{imports}\nConsumer('')", 2, "expected one or more printable characters ({file}, line 2)"),
        ("{imports}\nempty = Consumer('empty')", 1, "the consumer 'empty' has no handler; add one by @consumer.on(…)"),
        ("{imports}\ndef make(): pass", 2, "wrong defines no consumer; expected one"),
    ],
)
def test_a_module_without_a_usable_consumer_is_one_sentence(
    tmp_path: Path, program: str, code: int, message: str
) -> None:
    """
    An error in the module is shown with its place in the author's code.
    """
    file = tmp_path / "wrong.py"
    file.write_text(program.replace("{imports}", "from dkist_processing_core import Consumer"))

    ran = run_command("consume", "wrong", "--until-idle", cwd=tmp_path)

    assert ran.returncode == code
    assert message.format(file=file) in " ".join(ran.stderr.split())


def test_more_threads_than_a_consumer_may_have_are_refused(tmp_path: Path) -> None:
    """
    The command has the limit of the class.
    """
    with pytest.raises(ValueError, match="workers is 1001, expected a whole number from 1 to 1000"):
        Consumer("announcer", workers=1001)

    ran = run_command("consume", "wrong", "--workers", "1001", cwd=tmp_path)

    assert ran.returncode == 2
    assert "should be less than or equal to 1000" in " ".join(ran.stderr.split())


def test_a_service_waits_for_a_function_that_has_not_returned_until_another_signal(tmp_path: Path) -> None:
    """
    One line names the function and its event, which is handled again at the next start.
    """
    (tmp_path / "actors.py").write_text(ENDLESS)
    with service(tmp_path) as process:
        until(process, "receives from the embedded")
        publish("A")
        assert process.stdout is not None
        assert process.stdout.readline() == "called\n"
        process.send_signal(signal.SIGTERM)
        line = until(process, "ends when its functions have returned: announce for task.failed r/A/1")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)

    assert "another signal ends it at once, and they are called again at the next start" in line
    assert process.returncode == -signal.SIGTERM


def test_a_service_answers_about_its_health(folder: Path) -> None:
    """
    While bus and database can be used, the status is 200.
    """
    with service(folder, "--health", "0") as process:
        line = until(process, "the health of the consumer is at")
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", line)

        def facts() -> dict[str, object]:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return dict(json.load(answer))

        wait_until(lambda: facts()["receives"] is True)
        found = facts()
    assert found == {
        "consumer": "announcer",
        "bus": "ok",
        "inbox": "ok",
        "receives": True,
        "handled": 0,
        "failedTries": 0,
        "dead": 0,
    }


def test_bad_health_has_another_status(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A service manager sees it without reading the content; the requests are not logged.
    """

    def health() -> tuple[bool, dict[str, object]]:
        return False, {"inbox": "unavailable"}

    with served(("127.0.0.1", 0), health) as address, pytest.raises(HTTPError, match="503") as refused:
        urllib.request.urlopen(address, timeout=10)
    with refused.value as answer:
        assert json.load(answer) == {"inbox": "unavailable"}
    assert capsys.readouterr().err == ""
