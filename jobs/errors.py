"""What a user of the command line must act on.

TidegateError
├── ClusterUnreachable   the Flink cluster does not answer
├── JobRefused           the cluster or `flink run` refused the job
├── JobFailed            the job ended before its work was done
├── KafkaProblem         brokers, topics or offsets are not as the run needs them
├── RunRefused           the run would lose or repeat data; the message says what to decide
├── UnknownStream        no contract describes the stream
├── SourceUnreadable     the source database cannot be read as the contract says
└── CannotCompare        a current table and its source cannot be compared
    └── NoTableYet       the current table has not been written yet
"""

from __future__ import annotations


class TidegateError(Exception):
    """A sentence that says what is wrong and what to do."""


class ClusterUnreachable(TidegateError):
    """The Flink cluster does not answer."""


class JobRefused(TidegateError):
    """The cluster or `flink run` refused the job."""


class JobFailed(TidegateError):
    """The job ended before its work was done."""


class KafkaProblem(TidegateError):
    """Brokers, topics or offsets are not as the run needs them."""


class RunRefused(TidegateError):
    """The run would lose or repeat data; the message says what to decide."""


class UnknownStream(TidegateError):
    """No contract describes the stream that was named."""


class SourceUnreadable(TidegateError):
    """The source database cannot be read as the contract says; the message never holds a password."""


class CannotCompare(TidegateError):
    """A current table and its source cannot be compared; the message says why."""


class NoTableYet(CannotCompare):
    """The current table has not been written yet; waiting may help."""
