// kafkajs: administration, producer, group, transactions.
const { Kafka, logLevel, CompressionTypes } = require("kafkajs");
const assert = require("assert");

const run = process.env.RUN;
const kafka = new Kafka({ brokers: [process.env.BOOTSTRAP], logLevel: logLevel.ERROR });

async function read(topic, groupId, n, quiet) {
  const c = kafka.consumer({ groupId, readUncommitted: false });
  await c.connect();
  await c.subscribe({ topic, fromBeginning: true });
  const got = [];
  await c.run({ eachMessage: async ({ message }) => got.push(message.value.toString()) });
  const until = Date.now() + (n ? 40000 : quiet);
  while (Date.now() < until && (!n || got.length < n)) await new Promise((r) => setTimeout(r, 50));
  await c.disconnect();
  return got.sort();
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: run, numPartitions: 3 }, { topic: run + "-tx", numPartitions: 2 }] });
  const p = kafka.producer({ idempotent: true });
  await p.connect();
  const want = [];
  for (let i = 0; i < 300; i++) want.push("v" + i);
  await p.send({ topic: run, compression: CompressionTypes.GZIP, messages: want.map((value, i) => ({ key: "k" + (i % 7), value })) });
  await p.disconnect();
  assert.deepStrictEqual(await read(run, run, 300), want.sort());
  assert.deepStrictEqual(await read(run, run, 0, 6000), []);
  const t = kafka.producer({ transactionalId: run, idempotent: true, maxInFlightRequests: 1 });
  await t.connect();
  for (const commit of [true, false]) {
    const tx = await t.transaction();
    await tx.send({ topic: run + "-tx", messages: [{ value: "tx-" + commit }] });
    await tx.sendOffsets({ consumerGroupId: run + "-eos", topics: [{ topic: run, partitions: [{ partition: 0, offset: commit ? "5" : "9" }] }] });
    await (commit ? tx.commit() : tx.abort());
  }
  await t.disconnect();
  assert.deepStrictEqual(await read(run + "-tx", run + "-rc", 1), ["tx-true"]);
  const offsets = await admin.fetchOffsets({ groupId: run + "-eos", topics: [run] });
  assert.strictEqual(offsets[0].partitions.find((x) => x.partition === 0).offset, "5");
  assert.strictEqual((await admin.describeGroups([run])).groups[0].state, "Empty");
  await admin.deleteGroups([run]);
  await admin.deleteTopics({ topics: [run, run + "-tx"] });
  await admin.disconnect();
  console.log("kafkajs: admin, idempotent producer, group, transactions with offsets");
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
