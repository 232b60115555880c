-- Ticks, not records, so that a stream without records is judged too; a function of its own, so that no commit waits.
INSERT INTO reports SELECT watch_freshness(tick) FROM ticks;
