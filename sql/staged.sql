-- The branches of a commit lane meet again; from here on only processing time counts.
SELECT stream_name, section, PROCTIME() AS arrived FROM heard_${lane};
