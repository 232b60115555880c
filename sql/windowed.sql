-- Work in flight: the sections of a commit interval, per stream. All state and all timers live in the JVM.
SELECT stream_name, ARRAY_AGG(section) AS sections
FROM TABLE(TUMBLE(TABLE staged_${lane}, DESCRIPTOR(arrived), INTERVAL ${every} DAY TO SECOND(3)))
GROUP BY stream_name, window_start, window_end;
