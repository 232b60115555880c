"""Exactly-once under fire: real processes, killed by a seeded schedule, and a count of every offset afterwards.

    python -m tests.chaos --seed 7 --minutes 20

What is real: broker, S3 server, JobManager, TaskManager, Python workers, supervisor, the kills, the stopped and woken
zombie, the deleted records, and the clock: the TaskManager and its workers run under libfaketime, whose steps the
whole process sees. Only the moment of a kill "between two steps" is arranged: tests/chaos/inject/ is on the workers'
PYTHONPATH and wraps the product's functions from outside; the product has no hooks.
"""
