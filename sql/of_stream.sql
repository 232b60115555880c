-- One stream's sections, so that its watermark is its own.
SELECT stream_name, event_time, section FROM announced WHERE stream_name = ${stream};
