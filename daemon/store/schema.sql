-- The store, schema 1.0. `daemon.store.rows` mirrors the columns; `checksum` covers exactly the columns listed
-- there, in their order. A minor version may add tables, views and columns that have a default (they carry a
-- checksum of their own if they need one); it never changes what stands here. `meta` keeps its shape for ever.
CREATE TABLE IF NOT EXISTS meta (
    key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS incidents (
    id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    fault_class TEXT NOT NULL,
    severity TEXT NOT NULL,
    severity_rank INTEGER NOT NULL,
    opened_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    closed_at REAL,
    culprits TEXT NOT NULL,
    basis TEXT NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS incidents_by_time ON incidents (opened_at);
CREATE INDEX IF NOT EXISTS incidents_by_state ON incidents (state, updated_at);
CREATE TABLE IF NOT EXISTS revisions (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    fault_class TEXT NOT NULL,
    severity TEXT NOT NULL,
    score REAL NOT NULL,
    basis TEXT NOT NULL,
    changes TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (incident_id, revision)
);
CREATE TABLE IF NOT EXISTS evidence (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    text TEXT NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (incident_id, ordinal)
);
CREATE TABLE IF NOT EXISTS findings (
    id TEXT NOT NULL PRIMARY KEY,
    at REAL NOT NULL,
    rule TEXT NOT NULL,
    severity TEXT NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS findings_by_time ON findings (at);
CREATE TABLE IF NOT EXISTS incident_findings (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    finding_id TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (incident_id, ordinal)
);
CREATE INDEX IF NOT EXISTS incident_findings_by_finding ON incident_findings (finding_id);
CREATE TABLE IF NOT EXISTS advice (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    lang TEXT NOT NULL,
    basis TEXT NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (incident_id, revision, lang)
);
CREATE TABLE IF NOT EXISTS feedback (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at REAL NOT NULL,
    verdict TEXT NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS feedback_by_incident ON feedback (incident_id);
CREATE TABLE IF NOT EXISTS silences (
    id TEXT NOT NULL PRIMARY KEY,
    start REAL NOT NULL,
    "end" REAL,
    cancelled INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    incident_id TEXT NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    target TEXT NOT NULL,
    ok INTEGER NOT NULL,
    at REAL NOT NULL,
    error TEXT NOT NULL,
    state TEXT NOT NULL,
    severity TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (incident_id, revision, target)
);
CREATE INDEX IF NOT EXISTS deliveries_by_time ON deliveries (at);
CREATE TABLE IF NOT EXISTS preferences (
    key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (
    client TEXT NOT NULL, request INTEGER NOT NULL, at REAL NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY (client, request)
);

CREATE VIEW IF NOT EXISTS incidents_v1 AS SELECT id, revision, state, fault_class, severity, severity_rank,
    opened_at, updated_at, closed_at, culprits, basis, body, checksum FROM incidents;
CREATE VIEW IF NOT EXISTS revisions_v1 AS SELECT incident_id, revision, at, state, fault_class, severity, score,
    basis, changes, checksum FROM revisions;
CREATE VIEW IF NOT EXISTS evidence_v1 AS SELECT incident_id, ordinal, text, body, checksum FROM evidence;
CREATE VIEW IF NOT EXISTS findings_v1 AS SELECT id, at, rule, severity, body, checksum FROM findings;
CREATE VIEW IF NOT EXISTS incident_findings_v1 AS SELECT incident_id, ordinal, finding_id, checksum
    FROM incident_findings;
CREATE VIEW IF NOT EXISTS advice_v1 AS SELECT incident_id, revision, lang, basis, body, checksum FROM advice;
CREATE VIEW IF NOT EXISTS feedback_v1 AS SELECT incident_id, at, verdict, body, checksum FROM feedback;
CREATE VIEW IF NOT EXISTS silences_v1 AS SELECT id, start, "end", cancelled, body, checksum FROM silences;
CREATE VIEW IF NOT EXISTS deliveries_v1 AS SELECT incident_id, revision, target, ok, at, error, state, severity,
    checksum FROM deliveries;
CREATE VIEW IF NOT EXISTS preferences_v1 AS SELECT key, value, checksum FROM preferences;
