-- Units that ever physically came in, as inventory said with the level.
ALTER TABLE stock_copy ADD COLUMN received_total bigint NOT NULL DEFAULT 0;

-- The same number as it was last counted for those who wait. Apart from the copy, so that a copy that is lost and built
-- anew counts nothing twice.
CREATE TABLE received (
    sku text COLLATE "C" NOT NULL,
    location text COLLATE "C" NOT NULL,
    -- NULL: what came in before anybody counted; the first number heard is where counting begins.
    total bigint,
    heard_time timestamptz NOT NULL,
    PRIMARY KEY (sku, location)
) WITH (fillfactor = 85);
INSERT INTO received (sku, location, heard_time) SELECT sku, location, 'epoch' FROM stock_copy;

-- Who waits for which variant. One that is left is deleted, once nothing is held for it any more.
CREATE TABLE subscriptions (
    subscription_id text COLLATE "C" PRIMARY KEY,
    customer_id text NOT NULL,
    sku text COLLATE "C" NOT NULL,
    product_id text COLLATE "C" NOT NULL,
    -- waiting, turn, held, taken, lapsed, leaving
    state text NOT NULL,
    -- Lower came first.
    place bigint GENERATED ALWAYS AS IDENTITY,
    -- Counts the turns: the hold of each has a request id of its own.
    turn bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    reservation_id text,
    hold_expire_time timestamptz,
    -- When the sweeper looks at it again.
    due_time timestamptz,
    -- When it was taken or lapsed.
    end_time timestamptz,
    journey_id text
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX subscriptions_open ON subscriptions (customer_id, sku) WHERE state IN ('waiting', 'turn', 'held');
CREATE INDEX subscriptions_of_customer ON subscriptions (customer_id, place);
CREATE INDEX subscriptions_waiting ON subscriptions (sku, place) WHERE state = 'waiting';
CREATE INDEX subscriptions_due ON subscriptions (due_time) WHERE due_time IS NOT NULL;
CREATE UNIQUE INDEX subscriptions_reservation ON subscriptions (reservation_id) WHERE reservation_id IS NOT NULL;
CREATE INDEX subscriptions_ended ON subscriptions (end_time) WHERE end_time IS NOT NULL;

-- Customers who left for good: nothing of them is written down again.
CREATE TABLE forgotten (
    customer_id text PRIMARY KEY,
    forget_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
