"""A Flink job that does nothing with the records: how fast Kafka's records come in, and reach a Python function.

Submitted by tests.bench.ceiling with `flink run`; the arguments are the kind of job and the source's options as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pyarrow as pa
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from jobs.exchange import exchange_arrow_columns, first_row_result
from sql import statement

SINK = "CREATE TEMPORARY TABLE nothing ({columns}) WITH ('connector' = 'blackhole')"
BYTES = "`key` BYTES, `value` BYTES, topic STRING, `partition` INT, `offset` BIGINT, `timestamp` TIMESTAMP_LTZ(3)"
COLUMNS = "`key`, `value`, topic, `partition`, `offset`, `timestamp`"


class TakeRecords(ScalarFunction):  # type: ignore[misc]
    """Takes a batch of records and gives nothing."""

    def is_deterministic(self) -> bool:
        """Keep the call in one place, as refine does."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Take the columns as refine does."""
        exchange_arrow_columns()

    def eval(self, *columns: pa.Array) -> Any:
        """Give a row a record, all null."""
        return first_row_result(None, len(columns[0]))


def main(kind: str, options: str) -> None:
    """Submit the job: `source` keeps the records in the JVM, `handover` gives them to Python."""
    environment = StreamExecutionEnvironment.get_execution_environment()
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(statement("records", options=json.loads(options)))
    if kind == "source":
        tables.execute_sql(SINK.format(columns=BYTES))
        query = f"INSERT INTO nothing SELECT {COLUMNS} FROM records"
    else:
        take = udf(TakeRecords(), result_type=DataTypes.STRING(), func_type="pandas", name="refine")
        tables.create_temporary_function("refine", take)
        tables.create_temporary_view("refined", tables.sql_query(statement("refined")))
        tables.execute_sql(SINK.format(columns="lines STRING"))
        query = "INSERT INTO nothing SELECT lines FROM refined WHERE lines IS NOT NULL"
    statements = tables.create_statement_set()
    statements.add_insert_sql(query)
    statements.attach_as_datastream()
    environment.execute_async(f"ceiling {kind}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
