-- A line is: stream, highest event time (ms), section reference; separated by tabs.
SELECT
  SPLIT_INDEX(line, U&'\0009', 0) AS stream_name,
  TO_TIMESTAMP_LTZ(CAST(SPLIT_INDEX(line, U&'\0009', 1) AS BIGINT), 3) AS event_time,
  SPLIT_INDEX(line, U&'\0009', 2) AS section
FROM refined
CROSS JOIN UNNEST(SPLIT(lines, U&'\000A')) AS split_lines(line)
WHERE lines IS NOT NULL;
