"""Records that Kafka deletes before the job has read them: the stream must stop and say so, never go on in silence."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from random import Random

import psutil
from kafka import TopicPartition

from tests.chaos.arena import Arena
from tests.chaos.records import LOST_WHILE_RUNNING, LOST_WHILE_STOPPED, Topic

BEFORE, DELETED, LEFT = 300, 400, 100  # records committed first, deleted unread, and left behind them
REPORT_SECONDS = 120.0


def lost_while_stopped(arena: Arena, _: Random) -> str:
    """Delete records while no TaskManager runs: the checkpoint points at what is gone."""
    _fill(arena, LOST_WHILE_STOPPED)
    arena.stack.kill("taskmanager")
    _delete_unread(arena, LOST_WHILE_STOPPED)
    arena.start_again("taskmanager")
    return _reported(arena, LOST_WHILE_STOPPED)


def lost_while_running(arena: Arena, _: Random) -> str:
    """Delete records ahead of a job that runs, but is held up (its workers are frozen, so the source reads no more)."""
    _fill(arena, LOST_WHILE_RUNNING)
    frozen = arena.stack.workers()
    try:
        for worker in frozen:
            worker.send_signal(signal.SIGSTOP)
        arena.flow.hurry(6.0)
        time.sleep(6.0)  # the source's buffers fill
        _delete_unread(arena, LOST_WHILE_RUNNING)
    finally:
        for worker in frozen:
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)
    return _reported(arena, LOST_WHILE_RUNNING)


def _fill(arena: Arena, topic: Topic) -> None:
    arena.flow.add(topic, 0, BEFORE)
    arena.flow.delivered()
    arena.until(
        f"the first records of {topic.name} are committed",
        lambda: (arena.progress(topic) or {}).get(0) == BEFORE - 1,
        150.0,
    )


def _delete_unread(arena: Arena, topic: Topic) -> None:
    arena.flow.add(topic, 0, DELETED + LEFT)
    arena.flow.delivered()
    with arena.kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic.name, 0): BEFORE + DELETED})


def _reported(arena: Arena, topic: Topic) -> str:
    words = arena.until(f"the loss in {topic.name} is reported", lambda: arena.reported(topic.stream), REPORT_SECONDS)
    return f"{topic.name}: offsets {BEFORE} to {BEFORE + DELETED - 1} deleted unread; {words}"
