"""
Delivery as an e-mail by SMTP.

Not here: the text (wording), and further tries (inbox).
"""

import logging
import smtplib
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime

from dkist_processing_core.errors import ConfigurationError, GiveUpError, NotDeliveredError
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.notify.notices import IDEMPOTENCY_KEY
from dkist_processing_core.notify.routes import Email
from dkist_processing_core.notify.wording import lines_of, title_of
from dkist_processing_core.text import clean_line, redact

_LONGEST_ANSWER, _LASTING, _MOST_ACCEPTED = 200, 500, 1000
# Who has a notice that is to be sent to others once more: the ids of notices with recipients, the latest ones.
_accepted: dict[tuple[str, str], None] = {}
logger = logging.getLogger("dkist_processing_core.notify")


def send(email: Email, notice: NoticeIssued) -> str:
    """
    Send a notice, and return the answer as a text.

    If the server refuses some recipients for now, a further try of this process is for those alone.

    Raises:
        NotDeliveredError: It was not delivered to all; a later try may succeed.
        GiveUpError: The server refuses it, and will refuse it again.
        ConfigurationError: A secret is missing.
    """
    password = "" if email.password is None else email.password.read()
    remaining = [each for each in email.recipients if (notice.id, each) not in _accepted]
    stage = "the connection"
    try:
        server = _connected(email)
        try:
            if email.user is not None:
                stage = "the login"
                server.login(email.user, password)
            stage = "the message"
            refused = server.send_message(message_of(email, notice), email.sender, remaining)
            # The message was accepted, whatever the answer to this is.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()
    except smtplib.SMTPRecipientsRefused as error:
        code = min((code for code, _ in error.recipients.values()), default=0)
        raise _refusal(code, ", ".join(error.recipients), "", password) from None
    except smtplib.SMTPResponseException as error:
        raise _refusal(error.smtp_code, stage, error.smtp_error, password) from None
    except smtplib.SMTPNotSupportedError as error:
        msg = f"the mail server {email.host} cannot be used: {error}; correct the route, and retry the dead letter"
        raise GiveUpError(msg) from None
    except (smtplib.SMTPException, OSError) as error:
        reason = redact(clean_line(str(getattr(error, "strerror", None) or error)), also=[password])
        msg = f"the mail server {email.host} cannot be reached: {reason[:_LONGEST_ANSWER]}"
        raise NotDeliveredError(msg) from None
    later = [each for each, (code, _) in refused.items() if code < _LASTING]
    if later:
        _accepted.update(((notice.id, each), None) for each in remaining if each not in refused)
        for pair in list(_accepted)[:-_MOST_ACCEPTED]:
            _accepted.pop(pair, None)
        msg = f"the mail server refuses {', '.join(later)} for now; the other recipients have it"
        raise NotDeliveredError(msg)
    if refused:
        # A further try would repeat it for the others.
        logger.error("the mail server has refused %s of a notice; others have it", ", ".join(refused))
    return f"accepted by {email.host}"


def _connected(email: Email) -> smtplib.SMTP:
    try:
        context = ssl.create_default_context(cafile=None if email.ca is None else str(email.ca))
    except (OSError, ssl.SSLError) as error:
        msg = f"the certificates {email.ca} cannot be used: {error}"
        raise ConfigurationError(msg) from error
    if email.security == "tls":
        return smtplib.SMTP_SSL(email.host, email.port, timeout=email.timeout, context=context)
    server = smtplib.SMTP(email.host, email.port, timeout=email.timeout)
    if email.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def message_of(email: Email, notice: NoticeIssued) -> EmailMessage:
    """Return a notice as a message; `EmailMessage` refuses a header with a line break."""
    message = EmailMessage()
    message["Subject"] = f"[dkist-core {notice.route}] {title_of(notice)}"
    message["From"] = email.sender
    message["To"] = ", ".join(email.recipients)
    message["Date"] = format_datetime(notice.time)
    # The same at each try, so that a mailbox may recognise a repetition.
    message["Message-ID"] = f"<{notice.id}@dkist-core.invalid>"
    message[IDEMPOTENCY_KEY] = notice.id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join([title_of(notice), "", *lines_of(notice), ""]))
    return message


def _refusal(code: int, what: str, answer: bytes | str, password: str) -> Exception:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    line = redact(clean_line(" ".join(text.split())), also=[password])[:_LONGEST_ANSWER]
    found = f"the mail server refused {what} with {code} {line}".strip()
    if code >= _LASTING:
        return GiveUpError(f"{found}; correct the route or its receiver, and retry the dead letter")
    return NotDeliveredError(found)
