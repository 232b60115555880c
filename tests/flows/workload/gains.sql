-- Columns that accounts gains while it is captured. A trigger fills them: the long one only when the owner changes, so that
-- other updates leave it out (TOAST).
ALTER TABLE accounts
    ADD motto text, ADD limited numeric(14,3), ADD seen timestamptz, ADD born date, ADD code uuid, ADD vip boolean,
    ADD score double precision, ADD facts jsonb, ADD raw bytea, ADD visits int, ALTER motto SET STORAGE EXTERNAL;
ALTER TABLE changelog.accounts
    ADD motto text, ADD limited numeric(14,3), ADD seen timestamptz, ADD born date, ADD code uuid, ADD vip boolean,
    ADD score double precision, ADD facts jsonb, ADD raw bytea, ADD visits int;
CREATE OR REPLACE FUNCTION changelog.filled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.owner IS DISTINCT FROM OLD.owner THEN
        NEW.motto := repeat(md5(NEW.owner), 300);
    END IF;
    NEW.limited := NEW.balance / 10;
    NEW.seen := NEW.opened + interval '1 microsecond';
    NEW.born := NEW.opened;
    NEW.code := md5(NEW.owner)::uuid;
    NEW.vip := NEW.balance > 0;
    NEW.score := NEW.balance / 3;
    NEW.facts := CASE WHEN NEW.note IS NOT NULL THEN jsonb_build_object('note', NEW.note) END;
    NEW.raw := decode(md5(NEW.owner), 'hex');
    NEW.visits := length(NEW.note);
    RETURN NEW;
END $$;
CREATE TRIGGER filled BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION changelog.filled();
