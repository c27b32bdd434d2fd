"""Numbered migrations: the tables and views of a store, and the upgrade of an older file.

Tables
    migrations   which migrations ran, and when
    settings     model name and fingerprint
    edits        one row per edit: its request as canonical JSON, and columns for searching
    operations   the append-only log, chained by digest
    membership   how each version changed the set of edits: one row per added or removed edit
    tags         names of versions; the newest row of a name applies
    artifacts    what a model learned for an edit
    payloads     safetensors bytes, keyed by digest, stored once
    snapshots    weights that edits share on a model: names and digests of tensors, and settings
    tensors      those tensors, each stored once, in full or as a delta
    snapshot_versions  which snapshot applies from a version on

Views for any DuckDB shell: ``edit_history``, ``active_edits``, ``operation_log``,
``codebook_rows``, ``adjustments``; the README documents their columns.

Each migration commits together with the row that records it. Opening for reading never migrates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from editkit_store.database.connection import Database
from editkit_store.database.errors import MissingTable
from editkit_store.errors import NotAStore, SchemaMismatch

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "Migration", "found_version", "migrate", "require"]


class Migration(NamedTuple):
    """One step from a schema version to the next."""

    version: int
    name: str
    statements: tuple[str, ...]


_FIRST = (
    """
    CREATE TABLE settings (
        name VARCHAR PRIMARY KEY,
        value VARCHAR NOT NULL
    )
    """,
    """
    CREATE TABLE edits (
        edit_id VARCHAR PRIMARY KEY,
        seq BIGINT NOT NULL,
        request VARCHAR NOT NULL,          -- canonical JSON of the EditRequest
        request_digest VARCHAR NOT NULL,   -- the same request twice has the same digest
        prompt_digest VARCHAR NOT NULL,    -- of prompt and conversation; the newest of these counts
        prompt VARCHAR NOT NULL,
        target VARCHAR NOT NULL,
        kind VARCHAR NOT NULL,
        method VARCHAR NOT NULL,
        added_at TIMESTAMP NOT NULL        -- UTC
    )
    """,
    """
    CREATE TABLE operations (
        seq BIGINT PRIMARY KEY,
        kind VARCHAR NOT NULL,
        version BIGINT NOT NULL,           -- current version after the operation
        changed BOOLEAN NOT NULL,          -- whether the operation made that version
        edit_id VARCHAR,
        target_version BIGINT,             -- version restored (rollback, undo, redo) or tagged
        undo_version BIGINT,               -- version that the next undo takes back, NULL at the end
        redo_version BIGINT,               -- undo operation's version that the next redo takes back
        active_count BIGINT NOT NULL,      -- active edits after it
        time TIMESTAMP NOT NULL,           -- UTC
        fingerprint VARCHAR,               -- model at hand, if any
        provenance VARCHAR NOT NULL,       -- canonical JSON of the Provenance
        detail VARCHAR NOT NULL,           -- canonical JSON, by kind
        parent_digest VARCHAR,
        digest VARCHAR NOT NULL
    )
    """,
    """
    CREATE TABLE membership (
        version BIGINT NOT NULL,
        edit_id VARCHAR NOT NULL,
        member BOOLEAN NOT NULL
    )
    """,
    """
    CREATE TABLE tags (
        seq BIGINT NOT NULL,
        name VARCHAR NOT NULL,
        version BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE artifacts (
        edit_id VARCHAR NOT NULL,
        fingerprint VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        method VARCHAR NOT NULL,
        verified BOOLEAN NOT NULL,
        usable BOOLEAN NOT NULL,
        digest VARCHAR,                    -- of the payload; NULL for a failed attempt
        metrics VARCHAR NOT NULL,          -- canonical JSON
        learned_at TIMESTAMP NOT NULL,
        PRIMARY KEY (edit_id, fingerprint)
    )
    """,
    """
    CREATE TABLE payloads (
        digest VARCHAR PRIMARY KEY,
        bytes BLOB NOT NULL
    )
    """,
    """
    CREATE VIEW operation_log AS
    SELECT o.seq, 'v' || o.version AS version, o.kind AS operation, o.changed, o.edit_id,
           e.prompt, e.target, e.method, o.active_count,
           json_extract_string(o.provenance, '$.author') AS author,
           json_extract_string(o.provenance, '$.reason') AS reason,
           o.time, o.fingerprint, o.digest
    FROM operations o LEFT JOIN edits e USING (edit_id)
    ORDER BY o.seq
    """,
    """
    CREATE VIEW active_edits AS
    WITH member_now AS (
        SELECT edit_id, arg_max(member, version) AS member FROM membership GROUP BY edit_id
    )
    SELECT e.edit_id, e.prompt, e.target, e.kind, e.method, e.added_at
    FROM edits e JOIN member_now m USING (edit_id)
    WHERE m.member
    QUALIFY row_number() OVER (PARTITION BY e.prompt_digest ORDER BY e.seq DESC) = 1
    ORDER BY e.seq
    """,
    """
    CREATE VIEW edit_history AS
    SELECT e.edit_id, e.prompt, e.target, e.kind, e.method, e.added_at,
           o.version AS added_in, o.changed AS became_active,
           (SELECT count(*) FROM artifacts a WHERE a.edit_id = e.edit_id AND a.usable) AS models,
           e.edit_id IN (SELECT edit_id FROM active_edits) AS active
    FROM edits e JOIN operations o ON o.seq = e.seq
    ORDER BY e.seq
    """,
)

# Conflicts between edits on a model are computed once, when an artifact is added.
_CONFLICTS = (
    # Canonical JSON: earlier edit to distance; NULL if not computed.
    "ALTER TABLE artifacts ADD COLUMN conflicts VARCHAR",
)

# Columns that verification recomputes, and columns for SQL queries.
_VERIFIABLE = (
    # Order of the edits: one operation may add several.
    "ALTER TABLE edits ADD COLUMN ordinal BIGINT",
    "UPDATE edits SET ordinal = seq",
    # An agent's key of its request; the same key twice is one edit.
    "ALTER TABLE edits ADD COLUMN idempotency_key VARCHAR",
    # Digest of the artifact's whole row, recorded by the operation that stored it.
    "ALTER TABLE artifacts ADD COLUMN record_digest VARCHAR",
    # Initial radius of the edit's scope, float32, L2. Before, it was only in the JSON header of the
    # payload.
    "ALTER TABLE artifacts ADD COLUMN radius DOUBLE",
    """
    UPDATE artifacts SET radius = found.radius FROM (
        SELECT digest, TRY_CAST(regexp_extract(
            CAST(bytes[1:2000] AS VARCHAR), 'radius[^:]*:([-+.0-9eE]+)', 1) AS DOUBLE) AS radius
        FROM payloads
    ) AS found
    WHERE artifacts.digest = found.digest
    """,
    "DROP VIEW edit_history",
    "DROP VIEW active_edits",
    """
    CREATE VIEW active_edits AS
    WITH member_now AS (
        SELECT edit_id, arg_max(member, version) AS member FROM membership GROUP BY edit_id
    )
    SELECT e.edit_id, e.prompt, e.target, e.kind, e.method, e.added_at, e.ordinal
    FROM edits e JOIN member_now m USING (edit_id)
    WHERE m.member
    QUALIFY row_number() OVER (PARTITION BY e.prompt_digest ORDER BY e.ordinal DESC) = 1
    ORDER BY e.ordinal
    """,
    """
    CREATE VIEW edit_history AS
    SELECT e.edit_id, e.prompt, e.target, e.kind, e.method, e.added_at,
           o.version AS added_in, o.changed AS became_active,
           (SELECT count(*) FROM artifacts a WHERE a.edit_id = e.edit_id AND a.usable) AS models,
           e.edit_id IN (SELECT edit_id FROM active_edits) AS active,
           json_extract_string(e.request, '$.author') AS author,
           json_extract_string(e.request, '$.agent') AS agent,
           json_extract_string(e.request, '$.conversation') AS conversation,
           json_extract_string(e.request, '$.source') AS source,
           e.idempotency_key, e.ordinal
    FROM edits e JOIN operations o ON o.seq = e.seq
    ORDER BY e.ordinal
    """,
)

# Adding an edit looks up earlier edits of the prompt.
_BY_PROMPT = ("CREATE INDEX edits_by_prompt ON edits (prompt_digest)",)

# Weights that edits share on a model, for methods whose edits change the same weights.
_SNAPSHOTS = (
    """
    CREATE TABLE snapshots (
        digest VARCHAR PRIMARY KEY,        -- of the manifest
        manifest VARCHAR NOT NULL          -- canonical JSON: tensors by name, and settings
    )
    """,
    """
    CREATE TABLE tensors (
        digest VARCHAR PRIMARY KEY,        -- of the tensor's bytes
        base VARCHAR,                      -- tensor that the bytes are a difference from
        item INTEGER NOT NULL,             -- bytes of one number
        length BIGINT NOT NULL,            -- bytes of the tensor
        bytes BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE snapshot_versions (
        fingerprint VARCHAR NOT NULL,      -- whose: see `NewEdit.shared_by`
        version BIGINT NOT NULL,           -- from this one on
        seq BIGINT NOT NULL,               -- operation that says so
        digest VARCHAR                     -- of the snapshot; NULL where nothing is learned
    )
    """,
)

# Current radii follow from a rule of the method, so SQL shows the recorded initial ones.
_RECORDED_RADII = (
    "DROP VIEW IF EXISTS codebook_rows",
    """
    CREATE VIEW codebook_rows AS
    WITH here AS (
        SELECT a.fingerprint, a.model, a.method, a.edit_id, e.prompt, e.target, e.ordinal,
               json_extract_string(a.metrics, '$.site') AS site, a.radius, a.conflicts
        FROM artifacts a JOIN active_edits e USING (edit_id)
        WHERE a.usable AND a.radius IS NOT NULL
    ), pairs AS (
        SELECT h.fingerprint, h.edit_id AS one, c.key AS other
        FROM here h, json_each(h.conflicts) c
        SEMI JOIN here o ON o.edit_id = c.key AND o.fingerprint = h.fingerprint
    ), counts AS (
        SELECT fingerprint, edit_id, count(*) AS conflicts
        FROM (SELECT fingerprint, one AS edit_id FROM pairs
              UNION ALL SELECT fingerprint, other FROM pairs)
        GROUP BY ALL
    )
    SELECT h.fingerprint, h.model, h.method, h.site, h.edit_id, h.prompt, h.target,
           h.radius AS initial_radius, coalesce(c.conflicts, 0) AS conflicts
    FROM here h LEFT JOIN counts c USING (fingerprint, edit_id)
    ORDER BY h.fingerprint, h.ordinal
    """,
)

# Adjustments are operations, whose details hold them. The migration also keeps older versions of
# editkit, which would ignore them, from opening the store.
_ADJUSTMENTS = (
    """
    CREATE VIEW adjustments AS
    WITH said AS (
        SELECT seq, 'also' AS stance,
               unnest(CAST(json_extract(detail, '$.also') AS VARCHAR[])) AS prompt
        FROM operations WHERE kind = 'adjust'
        UNION ALL
        SELECT seq, 'not', unnest(CAST(json_extract(detail, '$.not') AS VARCHAR[]))
        FROM operations WHERE kind = 'adjust'
    )
    SELECT o.seq, 'v' || o.version AS version, o.changed, o.edit_id, e.prompt AS edit_prompt,
           e.target, s.stance, s.prompt,
           json_extract_string(o.provenance, '$.author') AS author,
           json_extract_string(o.provenance, '$.reason') AS reason, o.time
    FROM operations o JOIN said s USING (seq) JOIN edits e USING (edit_id)
    ORDER BY o.seq, s.stance, s.prompt
    """,
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first schema", _FIRST),
    Migration(2, "conflicts between artifacts", _CONFLICTS),
    Migration(3, "records that can be verified", _VERIFIABLE),
    Migration(4, "edits by prompt", _BY_PROMPT),
    Migration(5, "snapshots of adaptors", _SNAPSHOTS),
    Migration(6, "radii as recorded", _RECORDED_RADII),
    Migration(7, "adjustments of edits", _ADJUSTMENTS),
)
SCHEMA_VERSION = MIGRATIONS[-1].version


def found_version(database: Database) -> int:
    """Returns the schema version of an open file; writes nothing.

    Raises:
        NotAStore: It is a DuckDB file without editkit's tables.
    """
    try:
        row = database.one("SELECT max(version) FROM migrations")
    except MissingTable as error:
        raise NotAStore(
            f"'{database.path}' is a DuckDB file, but not an editkit store",
            path=database.path,
            hint="name another file with --store",
        ) from error
    return int(row[0]) if row is not None and row[0] is not None else 0


def require(database: Database) -> int:
    """Returns the schema version; raises if this editkit cannot use it as it is.

    Raises:
        NotAStore: There are no editkit tables.
        SchemaMismatch: It is newer than this editkit, or older and not migrated.
    """
    found = found_version(database)
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the store '{database.path}' has schema {found}; this editkit knows {SCHEMA_VERSION}",
            path=database.path,
            found=found,
            supported=SCHEMA_VERSION,
            hint="upgrade editkit; the store was not touched",
        )
    if found < SCHEMA_VERSION and database.read_only:
        raise SchemaMismatch(
            f"the store '{database.path}' has schema {found} and needs {SCHEMA_VERSION}; "
            "opening it for reading does not migrate it",
            path=database.path,
            found=found,
            supported=SCHEMA_VERSION,
            hint="run any command that writes, e.g. `editkit init`, to migrate it",
        )
    return found


def migrate(database: Database, *, now: Callable[[], datetime]) -> tuple[Migration, ...]:
    """Runs the migrations that the file lacks, each in a transaction with its own record.

    Returns:
        The migrations that ran.

    Raises:
        SchemaMismatch: The file is newer than this editkit.
    """
    with database.transaction():
        database.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            "version BIGINT PRIMARY KEY, name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)"
        )
    found = require(database)
    pending = tuple(step for step in MIGRATIONS if step.version > found)
    for step in pending:
        with database.transaction():
            for statement in step.statements:
                database.execute(statement)
            database.execute(
                "INSERT INTO migrations VALUES (?, ?, ?)", [step.version, step.name, now()]
            )
    return pending
