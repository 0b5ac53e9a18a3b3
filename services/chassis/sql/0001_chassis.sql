-- Facts that are committed and not yet announced. Rows are deleted once Kafka has acknowledged them.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    key text NOT NULL,
    headers jsonb NOT NULL,
    value bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Facts that were handled. The row is written in the transaction of the handler.
CREATE TABLE inbox (
    topic text NOT NULL,
    fact_id text NOT NULL,
    handle_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, fact_id)
);
CREATE INDEX inbox_handle_time ON inbox (handle_time);

-- How often the message at this position was tried. Written before the handler runs, so that a crash counts.
CREATE TABLE attempts (
    topic text NOT NULL,
    partition_number integer NOT NULL,
    message_offset bigint NOT NULL,
    attempts integer NOT NULL,
    PRIMARY KEY (topic, partition_number)
);

-- Keys with a message in the dead-letter topic: later messages of the same key wait behind it there.
CREATE TABLE parked_keys (
    topic text NOT NULL,
    key text NOT NULL,
    parked bigint NOT NULL,
    replayed bigint NOT NULL DEFAULT 0,
    first_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, key)
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
