"""
One test's part of the private RabbitMQ node: a separate virtual host.

Not here: the node's processes.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pika

from tests.services.rabbitmq import NodeError, RabbitMQNode


@dataclass(frozen=True)
class Broker:
    """
    An empty virtual host and the credentials of a user in it.
    """

    node: RabbitMQNode = field(repr=False)
    host: str
    port: int
    vhost: str
    username: str
    password: str = field(repr=False)

    @property
    def env(self) -> dict[str, str]:
        """
        The variables that name this broker to a process of the library.
        """
        mesh = {"interservice-bus": {"mesh_address": self.host, "mesh_port": self.port}}
        return {
            "MESH_CONFIG": json.dumps(mesh),
            "ISB_USERNAME": self.username,
            "ISB_PASSWORD": self.password,
            "ISB_VHOST": self.vhost,
        }

    def connect(self) -> pika.BlockingConnection:
        """
        Open a connection that does not use the code under test; close it, or use it in a ``with``.
        """
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                host=self.host,
                port=self.port,
                virtual_host=self.vhost,
                credentials=pika.PlainCredentials(self.username, self.password),
                connection_attempts=1,
                heartbeat=0,
                socket_timeout=10,
                stack_timeout=15,
                blocked_connection_timeout=30,
            )
        )

    def as_user(self, *, configure: str = "", write: str = "", read: str = "") -> "Broker":
        """
        Return this virtual host for a new user with only these permissions (regular expressions).
        """
        username, password = f"user-{secrets.token_hex(4)}", secrets.token_hex(12)
        self.node.add_user(username, password, vhost=self.vhost, configure=configure, write=write, read=read)
        return replace(self, username=username, password=password)

    def close_connections(self, reason: str = "closed by the test") -> None:
        """
        Make the node close every connection in this virtual host.
        """
        self.node.eval(
            f'[catch rabbit_networking:close_connection(P, "{reason}") || P <- rabbit_networking:connections(), '
            f'(catch rabbit_reader:info(P, [vhost])) =:= [{{vhost, <<"{self.vhost}">>}}]].'
        )

    @contextmanager
    def absent(self, queue: str) -> Iterator[None]:
        """
        Make the node treat the home of a durable queue as down, as a starting node itself does.
        """
        name = f'Name = rabbit_misc:r(<<"{self.vhost}">>, queue, <<"{queue}">>)'
        if self.node.has_mnesia:
            leave = "ok = mnesia:dirty_delete(rabbit_queue, Name)."
            come_back = "[Q] = mnesia:dirty_read(rabbit_durable_queue, Name), mnesia:dirty_write(rabbit_queue, Q)."
        else:
            # Khepri keeps the bindings of a missing queue, Mnesia does not.
            leave = (
                "Bindings = [Bound || Bound <- rabbit_binding:list_for_destination(Name), "
                "element(4, element(2, Bound)) =/= <<>>], persistent_term:put(Name, Bindings), "
                '[ok = rabbit_binding:remove(Bound, <<"tests">>) || Bound <- Bindings], '
                "rabbit_db_queue:update(Name, fun(Q) -> amqqueue:set_state(Q, stopped) end), ok."
            )
            come_back = (
                "rabbit_db_queue:update(Name, fun(Q) -> amqqueue:set_state(Q, live) end), "
                '[ok = rabbit_binding:add(Bound, <<"tests">>) || Bound <- persistent_term:get(Name)], ok.'
            )
        self.node.eval(f"{name}, {leave}")
        try:
            yield
        finally:
            self.node.eval(f"{name}, {come_back}")


@contextmanager
def open_broker(node: RabbitMQNode) -> Iterator[Broker]:
    """
    Yield a new virtual host on the node, and delete it in the end.

    Whatever a test did to the node is undone before the next one and not after it, so that a node left dead on purpose
    is started again only if a test needs it.
    """
    node.recover()
    vhost = f"test-{secrets.token_hex(6)}"
    node.add_vhost(vhost)
    try:
        yield Broker(node, node.host, node.port, vhost, node.username, node.password)
    finally:
        node.resume()
        if node.is_running:
            # A recently killed node may be half alive; an unused virtual host does no harm.
            with suppress(NodeError):
                node.delete_vhost(vhost)
