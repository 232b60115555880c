-- One call takes a batch of records, writes its segment, and answers in the first row: one line a stream.
SELECT refine(
  topic, `partition`, `offset`, `timestamp`, `key`, `value`,
  headers['__debezium.oldkey'], headers['__debezium.newkey']
) AS lines
FROM records;
