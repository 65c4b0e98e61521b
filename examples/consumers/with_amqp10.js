// Print each event as one line, in JavaScript with rhea, a client of AMQP 1.0.
//
//     npm install rhea
//     dkist-core topology apply --consumer announcer=task.failed
//     AMQP_URL=amqp://user:password@broker.example:5672/%2F node with_amqp10.js /queues/announcer

const container = require("rhea");

const REMEMBERED = 10_000;

// Receive from a queue of RabbitMQ 4, named by its address, until SIGTERM or Ctrl-C.
function main(address) {
  const url = new URL(process.env.AMQP_URL);
  const connection = container.connect({
    host: url.hostname,
    port: url.port || 5672,
    hostname: `vhost:${decodeURIComponent(url.pathname.slice(1)) || "/"}`,
    username: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
  });
  // Each message is accepted when it is printed, and not before.
  const receiver = connection.open_receiver({source: address, credit_window: 100, autoaccept: false});
  const seen = new Set();
  receiver.on("message", ({message, delivery}) => {
    try {
      const event = JSON.parse(message.body.content.toString("utf8"));
      // The task and the engine may report one occurrence, and the broker may deliver a message again: the id is the
      // same. A consumer with effects keeps the ids in its database.
      if (!seen.has(event.id)) show(event.type, event.data);
      seen.add(event.id);
    } catch (error) {
      console.error(`not an event: ${error.message}`);
    }
    if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
    delivery.accept();
  });
  receiver.on("receiver_error", () => {
    console.error(`${address} cannot be read: ${receiver.error}`);
    process.exitCode = 1;
    connection.close();
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => connection.close());
}

function show(kind, data) {
  const task = data.taskName ? `/${data.taskName}` : "";
  const reason = data.errorType ? `: ${data.errorType}: ${data.message}` : "";
  console.log(`${kind} ${data.workflowName}${task}${reason}`);
}

main(...process.argv.slice(2));
