"""
The parameters of a connection to the broker of the settings.

Not here: the connection (pika_connection), and the context of TLS (bus.amqp.tls).
"""

import pika

from dkist_processing_core.bus.amqp import tls
from dkist_processing_core.journal.message import APP_ID
from dkist_processing_core.settings.interface import Settings

HEARTBEAT_SECONDS = 10


def parameters(settings: Settings, timeout: float) -> pika.ConnectionParameters:
    """Return pika's parameters for the broker of the settings; each step of connecting has `timeout` seconds."""
    service = settings.isb_mesh_service
    return pika.ConnectionParameters(
        host=service.host,
        port=service.port,
        virtual_host=settings.isb_vhost,
        credentials=pika.PlainCredentials(settings.isb_username, settings.isb_password, erase_on_connect=True),
        heartbeat=HEARTBEAT_SECONDS,
        socket_timeout=timeout,
        stack_timeout=timeout,
        connection_attempts=1,
        ssl_options=pika.SSLOptions(tls.make_context(settings), tls.server_name(settings))
        if tls.is_wanted(settings)
        else None,
        client_properties={"connection_name": APP_ID},
    )
