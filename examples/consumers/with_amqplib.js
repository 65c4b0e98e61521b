// Print each event as one line, in JavaScript with amqplib.
//
//     npm install amqplib
//     AMQP_URL=amqp://user:password@broker.example:5672/%2F node with_amqplib.js announcer 'task.failed.#'

const amqp = require("amqplib");

// As `dkist-core topology apply --consumer` declares the queue: a slow consumer loses only its own oldest events.
const ARGUMENTS = {"x-queue-type": "classic", "x-max-length": 100_000, "x-overflow": "drop-head", "x-expires": 604_800_000};
const REMEMBERED = 10_000;

// Bind a queue to the events whose routing keys match, and print them until SIGTERM or Ctrl-C.
async function main(queue, ...patterns) {
  const connection = await amqp.connect(process.env.AMQP_URL);
  connection.on("close", (error) => {
    if (error) console.error(error.message);
    process.exitCode = error ? 1 : 0;
  });
  // The broker delivers the messages again that are not acknowledged then.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => connection.close());
  const channel = await connection.createChannel();
  await channel.assertQueue(queue, {durable: true, arguments: ARGUMENTS});
  for (const pattern of patterns.length ? patterns : ["#"]) {
    await channel.bindQueue(queue, "workflow.events.x", pattern);
  }
  await channel.prefetch(100);
  const seen = new Set();
  await channel.consume(queue, (message) => {
    if (message === null) throw new Error("the queue was deleted");
    try {
      const event = JSON.parse(message.content.toString("utf8"));
      // The task and the engine may report one occurrence, and the broker may deliver a message again: the id is the
      // same. A consumer with effects keeps the ids in its database.
      if (!seen.has(event.id)) show(event.type, event.data);
      seen.add(event.id);
    } catch (error) {
      console.error(`not an event: ${error.message}`);
    }
    if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
    channel.ack(message);
  });
}

function show(kind, data) {
  const task = data.taskName ? `/${data.taskName}` : "";
  const reason = data.errorType ? `: ${data.errorType}: ${data.message}` : "";
  console.log(`${kind} ${data.workflowName}${task}${reason}`);
}

main(...process.argv.slice(2));
