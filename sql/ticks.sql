-- A row a second, to look after freshness and the schema registries by: refine cannot report while it waits for one.
CREATE TEMPORARY TABLE ticks (tick BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1');
