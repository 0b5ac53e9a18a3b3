-- Facts that are committed and not yet announced. Rows are deleted once Kafka has acknowledged them. Key and value are
-- as they go out (a dead letter may have any bytes, or none); the text of a header is its bytes, read as latin-1.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    key bytea,
    headers json NOT NULL,
    value bytea,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Facts that were handled. The row is written in the transaction of the handler. A fact that was given up after it
-- failed has the reason.
CREATE TABLE inbox (
    topic text NOT NULL,
    fact_id text NOT NULL,
    handle_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    drop_reason text,
    PRIMARY KEY (topic, fact_id)
);
CREATE INDEX inbox_handle_time ON inbox (handle_time);

-- How often handling began at this position without coming to an end. Written before the handler runs, so that a crash
-- counts; deleted by the transaction that handles.
CREATE TABLE attempts (
    topic text NOT NULL,
    partition_number bigint NOT NULL,
    message_offset bigint NOT NULL,
    attempts bigint NOT NULL,
    PRIMARY KEY (topic, partition_number, message_offset)
);

-- Keys with a message in the dead-letter topic: later messages of the same key wait behind it there.
CREATE TABLE parked_keys (
    topic text NOT NULL,
    key bytea NOT NULL,
    parked bigint NOT NULL,
    replayed bigint NOT NULL DEFAULT 0,
    first_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, key)
);

-- Messages that wait in the dead-letter topic: failed, or parked behind one that did. Deleted when handled or given up.
CREATE TABLE dead_letters (
    topic text NOT NULL,
    fact_id text NOT NULL,
    key bytea,
    reason text NOT NULL,
    park_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, fact_id)
);

-- Answers to mutating calls, kept so that a repeat gets the same. Written in the transaction of the call.
CREATE TABLE requests (
    caller text NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    body_hash bytea NOT NULL,
    response bytea,
    customer_id text,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (caller, method, request_id)
);
CREATE INDEX requests_create_time ON requests (create_time);
CREATE INDEX requests_customer ON requests (customer_id) WHERE customer_id IS NOT NULL;

-- The latest word of another service on something, as it was heard.
CREATE TABLE latest (
    name text PRIMARY KEY,
    as_of timestamptz NOT NULL,
    version bigint NOT NULL,
    message bytea NOT NULL
);
