INSERT INTO reports SELECT probe_registries(tick) FROM ticks;
