"""aiokafka: producer, group, transactions."""
import asyncio, os
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, __version__
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

server, run = os.environ["BOOTSTRAP"], os.environ["RUN"]


async def read(topic, n, quiet=3, **conf):
    c = AIOKafkaConsumer(topic, bootstrap_servers=server, auto_offset_reset="earliest", enable_auto_commit=False, **conf)
    await c.start()
    got = []
    loop = asyncio.get_running_loop()
    until = loop.time() + (30 if n else quiet)
    while loop.time() < until and (not n or len(got) < n):
        for records in (await c.getmany(timeout_ms=200)).values():
            got += [r.value.decode() for r in records]
    if got and conf.get("group_id"):
        await c.commit()
    await c.stop()
    return sorted(got)


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=server)
    await admin.start()
    await admin.create_topics([NewTopic(run, 3, 1), NewTopic(run + "-tx", 2, 1)])
    p = AIOKafkaProducer(bootstrap_servers=server, enable_idempotence=True, compression_type="gzip")
    await p.start()
    want = sorted(f"v{i}" for i in range(300))
    for v in want:
        await p.send(run, v.encode(), key=v[-1:].encode())
    await p.stop()
    assert await read(run, 300, group_id=run) == want
    assert await read(run, 0, group_id=run) == []
    t = AIOKafkaProducer(bootstrap_servers=server, transactional_id=run)
    await t.start()
    for commit in [True, False]:
        await t.begin_transaction()
        for i in range(10):
            await t.send_and_wait(run + "-tx", f"{commit}-{i}".encode())
        await (t.commit_transaction() if commit else t.abort_transaction())
    await t.stop()
    got = await read(run + "-tx", 10, group_id=run + "-rc", isolation_level="read_committed")
    assert got == sorted(f"True-{i}" for i in range(10)), got
    await admin.delete_topics([run, run + "-tx"])
    await admin.close()
    print(f"aiokafka {__version__}: idempotent producer, group, transactions")


asyncio.run(main())
