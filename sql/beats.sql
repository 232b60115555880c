-- A row a second, so that a lane without records still completes what the key changes of other lanes lead to.
CREATE TEMPORARY TABLE beats (beat BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1');
