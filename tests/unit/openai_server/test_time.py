"""Time that jumps, and a transport that does not keep chunks back."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import httpx
import pytest

from tests.openai_server.app import Fault, ServerSetup, make_app
from tests.openai_server.serving import asgi_transport, serve
from tests.openai_server.virtual import Stuck, run_virtual
from tests.unit.openai_server.asking import BASE, Streamed, body, streamed


def test_an_hour_passes_in_order() -> None:
    seen: list[tuple[float, str]] = []

    async def sleeper(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(seconds)
            seen.append((asyncio.get_running_loop().time(), name))

    async def main() -> float:
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(sleeper("a", 1100, 3), sleeper("b", 1800, 2))
        return asyncio.get_running_loop().time() - begin

    assert run_virtual(main()) == pytest.approx(3600)
    assert [name for _, name in seen] == ["a", "b", "a", "a", "b"]
    assert [round(at - seen[0][0]) for at, _ in seen] == [0, 700, 1100, 2200, 2500]


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        timer = asyncio.ensure_future(asyncio.sleep(5.0))
        await asyncio.to_thread(time.sleep, 0.05)
        return timer.done(), loop.time() - begin

    assert run_virtual(main()) == (False, 0.0)


def test_waiting_for_nothing_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtual(main())


def test_timeouts_are_virtual() -> None:
    async def main() -> float:
        begin = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time() - begin

    assert run_virtual(main()) == pytest.approx(300)


def test_chunks_come_when_they_are_sent() -> None:
    """One token each 0.1 s is seen as that, not as one body at the end."""

    async def main() -> Streamed:
        setup = ServerSetup(decode_step_s=0.1, speculation=None)
        async with httpx.AsyncClient(transport=asgi_transport(setup), base_url=BASE) as client:
            return await streamed(client, body(max_tokens=20))

    times = [at for at, _ in run_virtual(main()).deliveries()]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == pytest.approx([0.1] * 19)


def test_a_read_timeout_of_the_client_holds() -> None:
    async def main() -> tuple[type[Exception], float]:
        setup = ServerSetup(faults=(Fault(kind="hang", rate=1),))
        begin = asyncio.get_running_loop().time()
        async with httpx.AsyncClient(transport=asgi_transport(setup), base_url=BASE, timeout=20) as client:
            found = await streamed(client, body(max_tokens=20))
        return type(found.error or ValueError()), asyncio.get_running_loop().time() - begin

    kind, seconds = run_virtual(main())
    assert kind is httpx.ReadTimeout
    assert 20 < seconds < 30


@pytest.mark.parametrize("kind", ["cut", "in-band", "http-503", "hang"])
def test_over_real_http_it_breaks_in_the_same_way(kind: str) -> None:
    app = make_app(ServerSetup.model_validate({"time_scale": 0.01, "faults": ({"kind": kind, "rate": 1},)}))

    async def main(url: str) -> Streamed:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=0.5 if kind == "hang" else 30) as client:
            return await streamed(client, body())

    with serve(app) as url:
        found = asyncio.run(main(url))
    expected = {"cut": httpx.RemoteProtocolError, "hang": httpx.ReadTimeout}.get(kind)
    if expected is not None:
        assert isinstance(found.error, expected)
        assert found.content
    else:
        assert "error" in found.documents[-1]
        assert found.error is None
