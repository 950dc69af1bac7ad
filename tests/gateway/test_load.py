"""What happens to many requests at once: a restart under load, clients that go away, a cloud that refuses them all."""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from tests.gateway.asking import Answer, asked
from tests.gateway.bench import Bench
from tests.gateway.stand_in import wait_until

CANCELS = 1000
_TOGETHER = 100
_PATIENCE_S = 20.0


def test_a_restart_of_the_gateway_under_load_answers_503_with_a_time(bench: Bench) -> None:
    """While LiteLLM is away the edge says so in words; never the cloud with a client's key, never a half answer that
    looks whole; afterwards all is as before. Of the requests that are just being handed over when it stops, one for
    each connection may end without any answer: HAProxy closes a kept connection so that its client asks again."""
    answers: list[Answer] = []
    broken: list[str] = []
    stop = threading.Event()

    def client(number: int) -> None:
        with bench.new_client() as mine:
            while not stop.is_set():
                try:
                    answers.append(asked(mine, bench.chat(f"load {number}", stream=bool(number % 2))))
                except httpx.HTTPError as error:
                    broken.append(repr(error))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        wait_until(lambda: len(answers) > 8, "load runs")
        bench.stop_litellm()
        wait_until(lambda: any(a.status == 503 for a in answers), "the edge says that LiteLLM is away")
        bench.start_litellm()
        so_far = len(answers)
        wait_until(lambda: sum(a.status == 200 for a in answers[so_far:]) > 8, "requests are answered again")
        stop.set()
        for done in clients:
            done.result(90)
    assert len(broken) <= 4, broken
    for answer in answers:
        whole = answer.status == 200 and answer.finish == "stop" and answer.broken is None
        said = answer.status == 503 and int(answer.headers["retry-after"]) > 0
        cut = answer.status == 200 and answer.finish is None and not answer.done
        assert whole or said or cut, (answer.status, answer.raw)
        assert answer.status != 503 or answer.backend
    assert bench.cloud.door.asked() == []


def _open_sockets(pids: list[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


async def _cancelled(bench: Bench, number: int, turn: asyncio.Semaphore) -> int:
    """Ask for a stream and hang up: at once, after its first event, or out of patience. Bytes that were read."""
    body = httpx.Request("POST", "http://edge/", json=bench.chat(f"cancel {number}", stream=True)).content
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {bench.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=str(bench.ca))
    async with turn:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", bench.edge_port, ssl=context, server_hostname="localhost"
        )
        read = 0
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            if number % 2:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        read = len(await reader.read(1))
        finally:
            writer.transport.abort()
        return read


def test_a_thousand_clients_that_hang_up_leave_nothing_behind(bench: Bench) -> None:
    """No request still runs at the engine, no connection and no file descriptor stays, and the next is answered."""
    for stream in (False, True) * 4:
        asked(bench.client, bench.chat(stream=stream))
    pids = bench.pids()
    before = _open_sockets(pids)
    bench.local.door.shut(after=2)

    async def all_of_them() -> list[int]:
        turn = asyncio.Semaphore(_TOGETHER)
        return await asyncio.gather(*(_cancelled(bench, number, turn) for number in range(CANCELS)))

    asyncio.run(all_of_them())
    assert bench.local.door.asked(), "none of them reached the engine"
    bench.local.door.release()
    wait_until(lambda: bench.local.door.running == 0, "no request runs at the engine", timeout_s=120)
    wait_until(lambda: not bench.local.server.live, "the engine has forgotten them", timeout_s=120)
    assert bench.cloud.door.asked() == []
    # Idle connections of a pool may stay open; they are few, and their number does not grow with that of the clients.
    wait_until(lambda: _open_sockets(pids) <= before + 120, "the gateway gave its descriptors back", timeout_s=120)
    after = asked(bench.client, bench.chat())
    assert after.backend == "local", after.raw
