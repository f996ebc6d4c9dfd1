-- Where workers find a model that a spec gives by path; empty: under its name. The newest sweep's word.
ALTER TABLE model ADD COLUMN path TEXT NOT NULL DEFAULT '';
