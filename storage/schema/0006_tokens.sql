-- Who may talk to a coordinator that serves with TLS. The token itself is nowhere: only its hash.
CREATE TABLE token(
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,                       -- part of the token; no secret
  name TEXT NOT NULL,                                   -- the person: the owner of her sweeps
  role INTEGER NOT NULL CHECK(role BETWEEN 1 AND 3),    -- viewer, submitter, admin
  hash TEXT NOT NULL,                                   -- SHA-256 of the token
  created_time_us INTEGER NOT NULL,
  last_used_time_us INTEGER NOT NULL DEFAULT 0,         -- to within a minute; 0: never
  revoked_time_us INTEGER NOT NULL DEFAULT 0            -- 0: good
) STRICT;
