"""Imports: a file and its run; over a real server."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import PATIENCE, Proxy, Server

import tapefeed
import tapefeed.aio
from tapefeed import Import, ImportProgress, Origin, RunState

START_MS = 1_723_161_255_342


def trades(folder: Path, symbol: str, count: int) -> Path:
    path = folder / f"{symbol}.csv"
    lines = (f"XETRA,{symbol},{START_MS + index}.000789,195.{index % 100:02},10\n" for index in range(count))
    path.write_text("venue,symbol,time_ms,price,quantity\n" + "".join(lines))
    return path


def test_a_file_is_imported_once(client: tapefeed.Client, tmp_path: Path) -> None:
    path = trades(tmp_path, "IMP", 3)
    with path.open("a") as file:
        file.write("XETRA,IMP,never,1,1\n")
    seen: list[ImportProgress] = []
    done = client.import_file(path, progress=seen.append, run_id="import-once")
    assert not done.duplicate
    run = done.run
    assert (run.state, run.tick_count, run.reject_count, run.file_name) == (RunState.SUCCEEDED, 3, 1, "IMP.csv")
    assert run.first_rejects[0].line_number == 5 and "never" in run.first_rejects[0].text
    assert run.first_rejects[0].reason is not tapefeed.ErrorReason.UNSPECIFIED
    assert run.failure is None and run.finish_time is not None and len(run.digest) == 64
    assert seen[-1].run == run and seen[-1].sent_bytes == seen[-1].size_bytes == path.stat().st_size
    found = list(client.ticks("IMP", min_cursor=run.cursor))
    assert [tick.event_time for tick in found] == [START_MS * 10**6 + 789 + index * 10**6 for index in range(3)]
    assert found[1].price == Decimal("195.01") and found[1].origin is Origin.BACKFILL
    assert client.import_file(path).duplicate
    assert client.run("import-once") == run
    assert run.digest in [each.digest for each in client.runs(state="succeeded", page_size=1)]
    assert list(client.watch("import-once"))[-1] == run
    assert client.cancel_run("import-once") == run


def test_columns_units_and_defects(client: tapefeed.Client, tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("ts;px\n1723161255.342000789;195.53\n")
    done = client.import_file(
        bare,
        venue="XETRA",
        symbol="BARE",
        columns={"event_time": "ts", "price": "px"},
        time_unit="s",
        delimiter=";",
        format="csv",
        max_rejects=0,
    )
    assert done.run.tick_count == 1
    (tick,) = client.ticks("BARE", min_cursor=done.run.cursor)
    assert tick.event_time == START_MS * 10**6 + 789 and tick.quantity is None
    with pytest.raises(tapefeed.ImportConflict):
        client.import_file(
            bare,
            venue="XETRA",
            symbol="BARE2",
            delimiter=";",
            time_unit="s",
            columns={"event_time": "ts", "price": "px"},
        )
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n")
    with pytest.raises(tapefeed.FileMalformed):
        client.import_file(broken, venue="X", symbol="Y")
    with pytest.raises(tapefeed.RunExists):
        client.import_file(trades(tmp_path, "OTHER", 1), run_id=done.run.run_id)
    with pytest.raises(OSError):
        client.import_file(tmp_path)


def test_an_import_goes_on_over_a_kill(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    path = trades(tmp_path, "KILLED", 60_000)
    with tapefeed.Client(proxy.address, reconnect_delays=(0.02, 0.2)) as client:
        killed = threading.Event()

        def progress(told: ImportProgress) -> None:
            if not killed.is_set():
                killed.set()
                server.kill()
                server.start()

        done = client.import_file(path, progress=progress)
        assert done.run.state is RunState.SUCCEEDED and killed.is_set()
        assert client.statistics("KILLED", min_cursor=done.run.cursor).tick_count == 60_000


def test_the_same_from_asyncio(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    path = trades(tmp_path, "ASYNC", 30_000)

    async def bring() -> Import:
        async with tapefeed.aio.Client(proxy.address, reconnect_delays=(0.02, 0.2)) as client:
            cut = False

            def progress(told: ImportProgress) -> None:
                nonlocal cut
                if not cut:
                    cut = True
                    proxy.cut()

            importing = asyncio.create_task(client.import_file(path, progress=progress, run_id="async-run"))
            watched: list[tapefeed.Run] = []
            while not watched:
                try:
                    watched = [run async for run in client.watch("async-run")]
                except tapefeed.RunUnknown:
                    await asyncio.sleep(0.01)
            done = await asyncio.wait_for(importing, PATIENCE)
            assert (await client.run("async-run")).state is RunState.SUCCEEDED
            assert watched[-1].state.is_final
            assert [run.run_id async for run in client.runs()] == [done.run.run_id]
            assert (await client.import_file(path)).duplicate
            assert (await client.cancel_run("async-run")).state is RunState.SUCCEEDED
            with pytest.raises(OSError):
                await client.import_file(tmp_path)
            return done

    assert asyncio.run(bring()).run.tick_count == 30_000
