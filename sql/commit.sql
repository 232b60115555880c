INSERT INTO reports SELECT commit_sections(stream_name, sections) FROM windowed_${lane};
