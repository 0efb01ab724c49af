"""librdkafka by confluent-kafka: administration, every codec, both group protocols, transactions."""
import os, time
from confluent_kafka import Producer, Consumer, KafkaException, TopicPartition, libversion
from confluent_kafka.admin import AdminClient, NewTopic

base = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
run = os.environ["RUN"]


def produce(conf, topic, values):
    failed = []
    p = Producer({**base, **conf})
    for i, v in enumerate(values):
        p.produce(topic, v, key=f"k{i % 5}", on_delivery=lambda e, m: failed.append(e) if e else None)
    assert p.flush(30) == 0 and not failed, failed


def read(conf, topic, n, quiet=3):
    c = Consumer({**base, "auto.offset.reset": "earliest", "enable.auto.commit": False, **conf})
    c.subscribe([topic])
    got, until = [], time.time() + (30 if n else quiet)
    while time.time() < until and (not n or len(got) < n):
        m = c.poll(0.2)
        if m is not None and not m.error():
            got.append(m.value().decode())
    if got:
        c.commit(asynchronous=False)
    c.close()
    return sorted(got)


admin = AdminClient(base)
for f in admin.create_topics([NewTopic(run, 3, 1), NewTopic(run + "-tx", 2, 1)]).values():
    f.result(30)
want = []
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    values = [f"{codec}-{i}" for i in range(100)]
    want += values
    produce({"compression.type": codec, "enable.idempotence": True, "linger.ms": 20}, run, values)
for protocol in ["classic", "consumer"]:
    conf = {"group.id": f"{run}-{protocol}", "group.protocol": protocol}
    got = read(conf, run, len(want))
    assert got == sorted(want), f"{protocol}: {len(got)} of {len(want)}"
    assert read(conf, run, 0, 4) == [], f"{protocol}: read twice"
p = Producer({**base, "transactional.id": run})
p.init_transactions(30)
for commit in [True, False, True]:
    p.begin_transaction()
    for i in range(10):
        p.produce(run + "-tx", f"{commit}-{i}", key=str(i))
    if commit:
        p.commit_transaction(30)
    else:
        p.flush(10)
        p.abort_transaction(30)
p.begin_transaction()
p.produce(run + "-tx", "zombie")
p.flush(10)
q = Producer({**base, "transactional.id": run})
q.init_transactions(30)
try:
    p.commit_transaction(30)
    raise AssertionError("a fenced producer commits")
except KafkaException as e:
    assert e.args[0].fatal() or e.args[0].txn_requires_abort(), e
got = read({"group.id": run + "-rc", "isolation.level": "read_committed"}, run + "-tx", 20)
assert got == sorted(2 * [f"True-{i}" for i in range(10)]), got
for f in admin.delete_topics([run, run + "-tx"]).values():
    f.result(30)
print(f"librdkafka {libversion()[0]}: 5 codecs, both group protocols, transactions with fencing")
os._exit(0)  # the fenced producer has nothing to wait for
