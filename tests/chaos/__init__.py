"""Exactly-once under fire: real processes, killed by a seeded schedule, and a count of every offset afterwards.

    python -m tests.chaos --seed 7 --minutes 20

The long run (`make chaos`, SEED and MINUTES) does every fault of faults.py once in an order that the seed decides, then
any of them again until the time is over, at a million records a minute; the two losses come once, because afterwards
their streams stand still. The short run (`make test`, tests/flows/test_exactly_once_under_fire.py) does each of its
faults at least once, with 2,000,000 records: fourteen always, and by its seed (TIDEGATE_CHAOS_SEED) one of the others.
In either the job may recover between two faults most of the time, and sometimes may not.

What is real: broker, S3 server, JobManager, TaskManager, Python workers, supervisor, the kills, the stopped and woken
zombie, the deleted records, and the clock: the TaskManager and its workers run under libfaketime, whose steps the
whole process sees; a segment that is stored later than it says proves it. Only the moment of a kill "between two steps"
is arranged: tests/chaos/inject/ is on the workers' PYTHONPATH and wraps the product's functions from outside; the
product has no hooks. What an orchestrator would do is done: a process that was killed, or a TaskManager that ended by
itself because a task could not be closed, is started again.
"""
