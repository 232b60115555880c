-- Arguments of the trigger: the table's name, and the columns of its key.
DROP SCHEMA IF EXISTS changelog CASCADE;
CREATE SCHEMA changelog;
CREATE SEQUENCE changelog.places;
CREATE FUNCTION changelog.told() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    log text := format('INSERT INTO changelog.%I SELECT nextval(''changelog.places''), $2, $3, ($1).*', TG_ARGV[0]);
    old_key jsonb;
    new_key jsonb;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('INSERT INTO changelog.%I (_seq, _op) VALUES (nextval(''changelog.places''), ''t'')', TG_ARGV[0]);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT jsonb_object_agg(name, to_jsonb(OLD) -> name) INTO old_key FROM unnest(TG_ARGV[1:]) AS name;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT jsonb_object_agg(name, to_jsonb(NEW) -> name) INTO new_key FROM unnest(TG_ARGV[1:]) AS name;
    END IF;
    IF TG_OP = 'UPDATE' AND old_key = new_key THEN
        EXECUTE log USING NEW, 'u', NULL::text;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE log USING OLD, 'd', NULL::text;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE log USING NEW, 'c', old_key::text;
    END IF;
    RETURN NULL;
END $$;
