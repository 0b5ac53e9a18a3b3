-- Who answers. What an agent says (status) is apart from what it is busy with (contact_id: the talk it is in).
CREATE TABLE agents (
    agent_id text PRIMARY KEY,
    display_name text NOT NULL,
    channels text [] NOT NULL,
    status text NOT NULL DEFAULT 'off' CHECK (status IN ('available', 'away', 'off')),
    contact_id text,
    -- The rank: whoever completed longest ago is asked first. A missed offer does not touch it.
    last_complete_time timestamptz
);

-- Signs of life, apart from the agents: a row that is written every 2 s must not wait for those who route.
CREATE TABLE heartbeats (
    agent_id text PRIMARY KEY REFERENCES agents,
    beat_time timestamptz
) WITH (fillfactor = 50);

-- One live attempt of a customer to reach a human.
CREATE TABLE contacts (
    contact_id text PRIMARY KEY,
    customer_id text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('phone', 'chat', 'video')),
    state text NOT NULL CHECK (state IN ('waiting', 'talking', 'completed', 'abandoned')),
    page text NOT NULL,
    press_time timestamptz NOT NULL,
    answer_time timestamptz,
    end_time timestamptz,
    agent_id text REFERENCES agents,
    promise_missed boolean NOT NULL DEFAULT false,
    journey_id text,
    -- Grows with each change.
    version bigint NOT NULL DEFAULT 1
);
-- A press while one waits or talks is no second contact.
CREATE UNIQUE INDEX contacts_live ON contacts (customer_id, channel) WHERE state IN ('waiting', 'talking');
CREATE UNIQUE INDEX contacts_one_talk ON contacts (agent_id) WHERE state = 'talking';
CREATE INDEX contacts_queue ON contacts (channel, press_time, contact_id) WHERE state = 'waiting';
CREATE INDEX contacts_unmissed ON contacts (press_time) WHERE state = 'waiting' AND NOT promise_missed;
CREATE INDEX contacts_talked ON contacts (end_time DESC) WHERE state = 'completed';

-- Customers who wait and watch: when a process last saw a stream of theirs. Without a reference to the contact, and
-- apart from it: a row that is written every 2 s must not wait for those who route.
CREATE TABLE watches (
    contact_id text PRIMARY KEY,
    watch_time timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A contact rings at a desk.
CREATE TABLE offers (
    offer_id text PRIMARY KEY,
    contact_id text NOT NULL REFERENCES contacts,
    agent_id text NOT NULL REFERENCES agents,
    state text NOT NULL CHECK (state IN ('pending', 'accepted', 'declined', 'timed_out', 'rescinded')),
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1
);
-- One assignment of a contact, and one live offer of it to an agent.
CREATE UNIQUE INDEX offers_assignment ON offers (contact_id) WHERE state = 'accepted';
CREATE UNIQUE INDEX offers_live ON offers (contact_id, agent_id) WHERE state = 'pending';
CREATE INDEX offers_at_desk ON offers (agent_id) WHERE state = 'pending';
CREATE INDEX offers_due ON offers (expire_time) WHERE state = 'pending';
CREATE INDEX offers_of_contact ON offers (contact_id, create_time);

-- Everything that happened between us and a customer, once (fact_id), in order (occur_time, cause, entry_id).
CREATE TABLE timeline (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id text NOT NULL,
    kind text NOT NULL,
    occur_time timestamptz NOT NULL,
    -- What happened at the same instant is told in the order in which one thing leads to the other.
    cause bigint NOT NULL,
    fact_id text NOT NULL,
    summary text NOT NULL,
    -- The words of a note, encrypted.
    note bytea,
    order_id text,
    contact_id text,
    agent_id text,
    journey_id text
);
CREATE UNIQUE INDEX timeline_once ON timeline (fact_id);
CREATE INDEX timeline_newest ON timeline (customer_id, occur_time DESC, cause DESC, entry_id DESC);

-- What was last announced of the hotline: one row.
CREATE TABLE hotline (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL DEFAULT 0,
    open_channels text [] NOT NULL DEFAULT '{}',
    expected_wait_seconds bigint,
    publish_time timestamptz
);
INSERT INTO hotline DEFAULT VALUES;
