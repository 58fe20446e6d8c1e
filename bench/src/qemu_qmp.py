"""Measures the package `qemu.qmp`: reads one JSON question a line, answers with a JSON list of figures."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time

from qemu.qmp import QMPClient

ARGV = ["qemu-system-arm", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "null",
        "-machine", "lm3s6965evb", "-cpu", "cortex-m3", "-m", "64K", "-kernel"]


KEPT = {}


class Machine:
    """A QEMU that connects to us, which needs no retry: as the package's documentation advises."""

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "qmp")
        self.qmp = QMPClient("bench")
        await self.qmp.start_server(path)
        stopped = ["-S"] if self.stopped else []
        self.process = subprocess.Popen(
            ARGV + [self.firmware] + stopped + ["-qmp", "unix:" + path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await self.qmp.accept()
        await self.qmp.execute("query-status")
        return self

    def __init__(self, firmware, stopped=True):
        self.firmware, self.stopped = firmware, stopped

    async def __aexit__(self, *_):
        self.process.kill()
        self.process.wait()
        try:
            await self.qmp.disconnect()
        except Exception:
            pass  # it has been killed
        self.folder.cleanup()


async def ready(path, **_):
    since = time.perf_counter()
    async with Machine(path, stopped=False):
        took = time.perf_counter() - since
    return [took * 1e3]


async def life(path, **_):
    since = time.perf_counter()
    async with Machine(path) as machine:
        for command in ["query-status", "cont", "stop", "quit"]:
            await machine.qmp.execute(command)
        machine.process.wait()
        took = time.perf_counter() - since
    return [took * 1e3]


async def lasting(firmware):
    """A machine that is kept for the next round."""
    if firmware not in KEPT:
        KEPT[firmware] = await Machine(firmware).__aenter__()
    return KEPT[firmware]


async def round_trips(path, count, **_):
    machine = await lasting(path)
    delays = []
    cpu, since = time.process_time(), time.perf_counter()
    for _ in range(count):
        before = time.perf_counter()
        await machine.qmp.execute("query-status")
        delays.append(time.perf_counter() - before)
    took, cpu = time.perf_counter() - since, time.process_time() - cpu
    delays.sort()
    at = lambda part: delays[round((count - 1) * part)] * 1e6
    return [count / took, at(0.5), at(0.99), cpu / count * 1e6]


async def in_flight(path, count, depth):
    machine = await lasting(path)

    async def caller():
        for _ in range(count // depth):
            await machine.qmp.execute("query-status")

    since = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(depth)))
    took = time.perf_counter() - since
    return [count / took]


async def events(path, count, **_):
    qmp = QMPClient("bench")
    await qmp.connect(path)
    arrived = 0
    since = time.perf_counter()

    async def listen():
        nonlocal arrived
        with qmp.listener() as listener:
            asyncio.ensure_future(qmp.execute("cont"))
            async for event in listener:
                arrived += 1
                if event["event"] == "POWERDOWN":
                    return

    await listen()
    took = time.perf_counter() - since
    await qmp.disconnect()
    return [arrived / took / 1e3, arrived * 100 / count]


async def end():
    for machine in KEPT.values():
        await machine.__aexit__()


def main():
    loop = asyncio.new_event_loop()
    print("ready", flush=True)
    try:
        for line in sys.stdin:
            question = json.loads(line)
            measure = globals()[question.pop("do")]
            print(json.dumps(loop.run_until_complete(measure(**question))), flush=True)
    finally:
        loop.run_until_complete(end())


main()
