-- What was committed is in the Delta log; nothing more is needed of the reports.
CREATE TEMPORARY TABLE reports (report STRING) WITH ('connector' = 'blackhole');
