"""The local stack: real Kafka, Flink, S3 and a schema registry on loopback ports, supervised from a home folder."""

from jobs.stack.errors import NotRunning, StackError
from jobs.stack.stack import DEFAULT_HOME, ProcessStatus, Stack

__all__ = ["DEFAULT_HOME", "NotRunning", "ProcessStatus", "Stack", "StackError"]
